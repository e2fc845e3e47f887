//! What a Provider of type `cdevents` may choose.

use crate::Spec;

/// The choices of one Provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which events become what.
    pub profile: Profile,
    /// The version of the spec to be sent.
    pub version: Version,
    /// Name of the local cluster, for ids; `local` when empty. Objects of another cluster bring theirs.
    pub cluster: String,
    /// `context.source`, an absolute URI; `/flux/<cluster>` when absent.
    pub source: Option<String>,
    /// Id of the environment, such as `/prod/eu-1`, for objects whose metadata name none; `/<cluster>` when absent.
    pub environment: Option<String>,
    /// Profile `delivery`: which failures are incidents.
    pub incidents: Incidents,
    /// Profile `delivery`: what a Kustomization is.
    pub kustomization_as: KustomizationAs,
    /// Profile `delivery`: sources and charts are told of too, and the errors that no rule names.
    pub sources: bool,
    /// Profile `delivery`: a new artifact of a GitRepository is a merged change.
    pub assume_merged: bool,
    /// Profile `delivery`: `DriftDetected` is told of, as a custom event.
    pub drift: bool,
    /// Profile `delivery`: every test hook is a test case run of its own, beside the suite.
    pub test_cases: bool,
    /// Messages are left out: those of Helm may hold secrets.
    pub omit_messages: bool,
}

/// Which events become what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// The table of the Flux RFC.
    #[default]
    Rfc,
    /// The same, with `pipelinerun.finished` for installs, upgrades and rollbacks.
    Pipeline,
    /// The same, with `build.finished`, and the outcome in `customData`.
    Build,
    /// What deployment metrics are made from: services, test suites, task runs, paired incidents.
    Delivery,
}

/// A version of the spec that can be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 0.4.1, the only one that Flux's own receivers take.
    V0_4_1,
    /// 0.5.1
    #[default]
    V0_5_1,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V0_4_1, Self::V0_5_1];

    /// The rules that it follows.
    pub fn spec(self) -> Spec {
        match self {
            Self::V0_4_1 => Spec::V0_4,
            Self::V0_5_1 => Spec::V0_5,
        }
    }

    /// The version that a Provider spells so.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.spec().as_str() == text)
    }
}

/// Which failures are incidents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Incidents {
    /// Those that hit what is running: failed upgrades and health checks.
    #[default]
    Running,
    /// Failed installs, applies and prunes as well.
    All,
}

/// What a Kustomization is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KustomizationAs {
    /// A service, in an environment that it modifies.
    #[default]
    Service,
    /// A part of an environment.
    Environment,
    /// Neither: only its failed runs and incidents are told of.
    None,
}
