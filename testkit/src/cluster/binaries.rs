//! Where the binaries of the cluster are.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The variable by which envtest users name the folder.
const VARIABLE: &str = "KUBEBUILDER_ASSETS";

/// Paths of the two binaries.
pub(super) struct Binaries {
    pub(super) etcd: PathBuf,
    pub(super) kube_apiserver: PathBuf,
}

impl Binaries {
    /// Looks into `KUBEBUILDER_ASSETS`, then into the workspace's `.assets`. Else says what is missing and what to do.
    pub(super) fn find() -> Result<Self, String> {
        let named = env::var_os(VARIABLE).map(PathBuf::from);
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.assets");
        named.into_iter().chain([built]).find_map(Self::inside).ok_or_else(|| {
            format!("etcd and kube-apiserver are missing: run `cargo xtask assets`, or name their folder in {VARIABLE}")
        })
    }

    fn inside(folder: PathBuf) -> Option<Self> {
        let found = Self { etcd: folder.join("etcd"), kube_apiserver: folder.join("kube-apiserver") };
        (found.etcd.is_file() && found.kube_apiserver.is_file()).then_some(found)
    }
}
