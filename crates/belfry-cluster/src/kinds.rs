//! The kinds that Belfry watches.

/// A kind by its group and name; which of its versions is watched, the API server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    /// The version to watch if it is served, whatever the API server prefers: so that an exchange of CRDs, ours for
    /// Flux's or back, doesn't change what is watched.
    pub(crate) version: Option<&'static str>,
    /// Most clusters don't have it, and nobody need be told.
    pub(crate) optional: bool,
}

const fn kind(group: &'static str, name: &'static str) -> Kind {
    Kind { group, name, version: None, optional: false }
}

const fn ours(name: &'static str, version: &'static str) -> Kind {
    Kind { group: belfry_api::GROUP, name, version: Some(version), optional: false }
}

const SOURCE: &str = "source.toolkit.fluxcd.io";
const IMAGE: &str = "image.toolkit.fluxcd.io";

/// Where deliveries go.
pub(crate) static PROVIDER: Kind = ours("Provider", belfry_api::STORAGE_VERSION);
/// Which events go where.
pub(crate) static ALERT: Kind = ours("Alert", belfry_api::STORAGE_VERSION);
/// Which webhooks are taken.
pub(crate) static RECEIVER: Kind = ours("Receiver", "v1");
/// Which rollouts are shown as commit statuses.
pub(crate) static COMMIT_STATUS: Kind = ours("CommitStatus", belfry_api::COMMIT_STATUS_VERSIONS[0]);

const fn tekton(name: &'static str, version: &'static str) -> Kind {
    Kind { group: "tekton.dev", name, version: Some(version), optional: true }
}

/// Runs of Tekton's custom tasks.
pub(crate) static CUSTOM_RUN: Kind = tekton("CustomRun", "v1beta1");
/// The same, before Tekton 0.47.
pub(crate) static RUN: Kind = tekton("Run", "v1alpha1");

/// The kinds that an Alert may name: what the object index holds.
pub(crate) static OBJECTS: [Kind; 12] = [
    kind(SOURCE, "Bucket"),
    kind(SOURCE, "GitRepository"),
    kind(SOURCE, "HelmRepository"),
    kind(SOURCE, "HelmChart"),
    kind(SOURCE, "OCIRepository"),
    kind(SOURCE, "ExternalArtifact"),
    kind("kustomize.toolkit.fluxcd.io", "Kustomization"),
    kind("helm.toolkit.fluxcd.io", "HelmRelease"),
    kind(IMAGE, "ImageRepository"),
    kind(IMAGE, "ImagePolicy"),
    kind(IMAGE, "ImageUpdateAutomation"),
    kind("source.extensions.fluxcd.io", "ArtifactGenerator"),
];
