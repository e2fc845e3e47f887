//! The server's answer as the command line reads it: lenient, since the server may be newer.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Whether it is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Succeeded,
    Failed,
    Superseded,
    Pending,
    Unknown,
    /// A word that this version doesn't know.
    #[default]
    #[serde(other)]
    Other,
}

/// How far an object is; what needs attention first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Failed,
    Superseded,
    Progressing,
    Pending,
    Succeeded,
    /// A word that this version doesn't know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Superseded => "superseded",
            Self::Progressing => "progressing",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
            Self::Succeeded => "succeeded",
        }
    }

    /// Whether something is yet to come.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Progressing | Self::Pending | Self::Unknown)
    }
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Answer {
    pub verdict: Verdict,
    pub message: String,
    pub revision: String,
    pub object: Option<String>,
    pub superseded_by: Option<String>,
    pub timed_out: bool,
    pub objects: Vec<Standing>,
    /// All of it, for programs.
    #[serde(skip)]
    pub whole: Value,
}

impl Answer {
    /// Reads one.
    pub fn parse(text: &str) -> Option<Self> {
        let whole: Value = serde_json::from_str(text).ok()?;
        let answer: Self = serde_json::from_value(whole.clone()).ok()?;
        (answer.verdict != Verdict::Other).then_some(Self { whole, ..answer })
    }
}

/// Where one object stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Standing {
    pub object: String,
    pub cluster: String,
    pub state: State,
    pub reason: String,
    pub message: String,
    pub live: Option<String>,
    pub superseded_by: Option<String>,
    pub started: Option<String>,
    pub finished: Option<String>,
}

impl Standing {
    /// Its name, with its cluster's if it has one.
    pub fn name(&self) -> String {
        if self.cluster.is_empty() { self.object.clone() } else { format!("{}:{}", self.cluster, self.object) }
    }

    /// For how long it has been, or was, on its way.
    pub fn took(&self, now: Timestamp) -> Option<Duration> {
        let time = |text: &Option<String>| text.as_ref()?.parse::<Timestamp>().ok();
        let end = if self.state.is_open() { now } else { time(&self.finished)? };
        Some(end.duration_since(time(&self.started)?).try_into().unwrap_or_default())
    }

    /// What there is to say of it, on one line.
    pub fn detail(&self) -> String {
        let mut parts = Vec::new();
        if let Some(next) = &self.superseded_by {
            parts.push(format!("by {next}"));
        }
        if self.state != State::Succeeded {
            // The reason `Progressing` says no more than the state.
            let reason = Some(&self.reason).filter(|reason| !reason.eq_ignore_ascii_case(self.state.as_str()));
            parts.extend(reason.into_iter().chain([&self.message]).filter(|part| !part.is_empty()).cloned());
            parts.extend(self.live.as_ref().map(|live| format!("live is {live}")));
        }
        parts.join(": ")
    }
}
