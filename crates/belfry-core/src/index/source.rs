//! Where an object's revisions come from.

use super::ObjectIndex;

/// The source that an object is made from, however many objects lie between, or itself when it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Kind: `GitRepository`, `OCIRepository`, `HelmRepository`, `Bucket`.
    pub kind: String,
    /// Its URL as written, which may hold a password; of a Bucket, its endpoint and name.
    pub url: String,
    /// Where in the source the object's files lie: a Kustomization's, or those of a chart in a git repository.
    pub path: Option<String>,
    /// Name of the chart.
    pub chart: Option<String>,
    /// The revision that the source holds now.
    pub revision: Option<String>,
    /// URL of the git repository that the content of an artifact was made from, as the artifact says.
    pub repository: Option<String>,
}

impl ObjectIndex {
    /// The source of this kind, namespace and name of object, as far as everything up to it is known.
    pub fn source(&self, kind: &str, namespace: &str, name: &str) -> Option<Source> {
        let mut object = self.get(kind, namespace, name)?;
        let (mut path, mut chart) = (None, None);
        // A HelmRelease has a HelmChart, and that a source.
        for _ in 0..3 {
            path = path.or(object.path.as_ref());
            chart = chart.or(object.chart.as_ref());
            if let Some(url) = &object.url {
                // In a git repository a chart has no name of its own: it goes by its path.
                let in_git = object.kind == "GitRepository";
                return Some(Source {
                    kind: object.kind.clone(),
                    url: url.clone(),
                    path: path.or(chart.filter(|_| in_git)).cloned(),
                    chart: chart.filter(|_| !in_git).cloned(),
                    revision: object.artifact_revision.clone(),
                    repository: object.artifact_origin_url.clone(),
                });
            }
            object = self.source_of(object)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::index::IndexedObject;

    fn object(kind: &str, name: &str, spec: Value) -> IndexedObject {
        let metadata = json!({"name": name, "namespace": "apps"});
        let status = json!({"artifact": {
            "revision": "main@sha1:5394",
            "metadata": {"org.opencontainers.image.source": "https://git.example/made"},
        }});
        let status = if kind == "OCIRepository" || kind == "GitRepository" { status } else { json!({}) };
        let object = json!({"apiVersion": "x/v1", "kind": kind, "metadata": metadata, "spec": spec, "status": status});
        IndexedObject::trim(&object).unwrap()
    }

    #[test]
    fn every_object_leads_to_its_source() {
        let mut index = ObjectIndex::default();
        for (kind, name, spec) in [
            ("GitRepository", "git", json!({"url": "https://git.example/fleet"})),
            ("OCIRepository", "oci", json!({"url": "oci://registry.example/app"})),
            ("HelmRepository", "helm", json!({"url": "https://charts.example"})),
            ("Bucket", "bucket", json!({"endpoint": "minio.example:9000", "bucketName": "fleet"})),
            ("Bucket", "plain", json!({"endpoint": "minio.example", "bucketName": "fleet", "insecure": true})),
            ("ExternalArtifact", "external", json!({"sourceRef": {"kind": "ArtifactGenerator", "name": "none"}})),
            (
                "HelmChart",
                "in-git",
                json!({"chart": "./charts/a", "sourceRef": {"kind": "GitRepository", "name": "git"}}),
            ),
            ("HelmChart", "named", json!({"chart": "a", "sourceRef": {"kind": "HelmRepository", "name": "helm"}})),
        ] {
            index.apply(object(kind, name, spec));
        }
        let from = |kind: &str, name: &str| json!({"path": "./prod", "sourceRef": {"kind": kind, "name": name}});
        let inline =
            json!({"chart": {"spec": {"chart": "b", "sourceRef": {"kind": "HelmRepository", "name": "helm"}}}});
        let by = |kind: &str, name: &str| json!({"chartRef": {"kind": kind, "name": name}});
        let table = [
            ("Kustomization", from("GitRepository", "git")),
            ("Kustomization", from("OCIRepository", "oci")),
            ("Kustomization", from("Bucket", "bucket")),
            ("Kustomization", from("Bucket", "plain")),
            ("Kustomization", from("ExternalArtifact", "external")),
            ("Kustomization", from("GitRepository", "gone")),
            ("HelmRelease", inline),
            ("HelmRelease", by("OCIRepository", "oci")),
            ("HelmRelease", by("HelmChart", "in-git")),
            ("HelmRelease", by("HelmChart", "named")),
            ("GitRepository", json!({"url": "ssh://git@git.example/self"})),
        ];
        let told = table.map(|(kind, spec)| {
            index.apply(object(kind, "it", spec));
            let Some(Source { kind: of, url, path, chart, revision, repository }) = index.source(kind, "apps", "it")
            else {
                return format!("{kind}: unknown");
            };
            let more = [path, chart, revision, repository].map(|part| part.unwrap_or_else(|| "-".into())).join(" ");
            format!("{kind}: {of} {url} {more}")
        });
        insta::assert_json_snapshot!(told, @r#"
        [
          "Kustomization: GitRepository https://git.example/fleet ./prod - main@sha1:5394 https://git.example/made",
          "Kustomization: OCIRepository oci://registry.example/app ./prod - main@sha1:5394 https://git.example/made",
          "Kustomization: Bucket https://minio.example:9000/fleet ./prod - - -",
          "Kustomization: Bucket http://minio.example/fleet ./prod - - -",
          "Kustomization: unknown",
          "Kustomization: unknown",
          "HelmRelease: HelmRepository https://charts.example - b - -",
          "HelmRelease: OCIRepository oci://registry.example/app - - main@sha1:5394 https://git.example/made",
          "HelmRelease: GitRepository https://git.example/fleet ./charts/a - main@sha1:5394 https://git.example/made",
          "HelmRelease: HelmRepository https://charts.example - a - -",
          "GitRepository: GitRepository ssh://git@git.example/self - - main@sha1:5394 https://git.example/made"
        ]
        "#);
        assert_eq!(index.source("Kustomization", "other", "it"), None);
    }
}
