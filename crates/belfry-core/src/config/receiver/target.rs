//! Which objects an entry of `spec.resources` means.

use std::collections::BTreeMap;

use belfry_api::ReceiverResource;

/// What an entry of `spec.resources` selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'s> {
    /// API group.
    pub group: &'s str,
    /// Version of the API.
    pub version: &'s str,
    /// Kind.
    pub kind: &'s str,
    /// Namespace.
    pub namespace: &'s str,
    /// Which objects of that kind.
    pub objects: Objects<'s>,
}

/// Which objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects<'s> {
    /// The one of this name, whatever its labels are.
    Named(&'s str),
    /// All that carry these labels, of which there is at least one.
    Labelled(&'s BTreeMap<String, String>),
}

/// What an entry of a Receiver in this namespace selects.
///
/// # Errors
/// When it never selects anything. The peer says so only when a webhook comes, and answers 500; the other entries are
/// still good.
pub fn target<'s>(
    entry: &'s ReceiverResource,
    receiver_namespace: &'s str,
    cross_namespace: bool,
) -> Result<Target<'s>, String> {
    let namespace = filled(entry.namespace.as_ref()).unwrap_or(receiver_namespace);
    if namespace != receiver_namespace && !cross_namespace {
        return Err("cross-namespace references are not allowed".to_owned());
    }
    let api_version = filled(entry.api_version.as_ref()).or_else(|| default_api_version(&entry.kind));
    let api_version = api_version.ok_or_else(|| format!("apiVersion must be specified for kind {:?}", entry.kind))?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let objects = match (entry.name.as_str(), &entry.match_labels) {
        ("*", Some(labels)) if !labels.is_empty() => Objects::Labelled(labels),
        ("*", _) => return Err("matchLabels field not set when using wildcard '*' as name".to_owned()),
        (name, _) => Objects::Named(name),
    };
    Ok(Target { group, version, kind: &entry.kind, namespace, objects })
}

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn default_api_version(kind: &str) -> Option<&'static str> {
    match kind {
        "Bucket" | "HelmChart" | "HelmRepository" | "GitRepository" | "OCIRepository" => {
            Some("source.toolkit.fluxcd.io/v1")
        }
        "ImageRepository" => Some("image.toolkit.fluxcd.io/v1"),
        "ArtifactGenerator" => Some("source.extensions.fluxcd.io/v1beta1"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use belfry_api::SOURCE_KINDS;

    use super::*;

    fn entry(kind: &str, name: &str) -> ReceiverResource {
        ReceiverResource { kind: kind.into(), name: name.into(), ..ReceiverResource::default() }
    }

    #[test]
    fn api_versions_by_kind() {
        let of = |kind: &str| {
            target(&entry(kind, "x"), "ns", true).map(|target| format!("{}/{}", target.group, target.version))
        };
        let unknown: Vec<&str> = SOURCE_KINDS.iter().copied().filter(|kind| of(kind).is_err()).collect();
        assert_eq!(
            unknown,
            ["Kustomization", "HelmRelease", "ImagePolicy", "ImageUpdateAutomation", "ExternalArtifact"]
        );
        assert_eq!(of("Kustomization").unwrap_err(), r#"apiVersion must be specified for kind "Kustomization""#);
        assert_eq!(of("GitRepository").unwrap(), "source.toolkit.fluxcd.io/v1");
        assert_eq!(of("ImageRepository").unwrap(), "image.toolkit.fluxcd.io/v1");
        assert_eq!(of("ArtifactGenerator").unwrap(), "source.extensions.fluxcd.io/v1beta1");
        for (api_version, group, version) in
            [("kustomize.toolkit.fluxcd.io/v1", "kustomize.toolkit.fluxcd.io", "v1"), ("v1", "", "v1")]
        {
            let entry = ReceiverResource { api_version: Some(api_version.into()), ..entry("Kustomization", "x") };
            let target = target(&entry, "ns", true).unwrap();
            assert_eq!((target.group, target.version), (group, version));
        }
    }

    #[test]
    fn names_labels_and_namespaces() {
        let labels: BTreeMap<String, String> = [("app".to_owned(), "podinfo".to_owned())].into();
        let with = |name: &str, labels: Option<BTreeMap<String, String>>, namespace: Option<&str>| ReceiverResource {
            match_labels: labels,
            namespace: namespace.map(str::to_owned),
            ..entry("GitRepository", name)
        };
        let named = with("podinfo", Some(labels.clone()), Some(""));
        let found = target(&named, "ns", false).unwrap();
        assert_eq!((found.namespace, found.objects), ("ns", Objects::Named("podinfo")));
        let wildcard = with("*", Some(labels.clone()), None);
        assert_eq!(target(&wildcard, "ns", false).unwrap().objects, Objects::Labelled(&labels));
        for labels in [None, Some(BTreeMap::new())] {
            let error = target(&with("*", labels, None), "ns", true).unwrap_err();
            assert_eq!(error, "matchLabels field not set when using wildcard '*' as name");
        }
        let elsewhere = with("podinfo", None, Some("other"));
        assert_eq!(target(&elsewhere, "ns", true).unwrap().namespace, "other");
        assert_eq!(target(&elsewhere, "ns", false).unwrap_err(), "cross-namespace references are not allowed");
        assert!(target(&elsewhere, "other", false).is_ok());
    }
}
