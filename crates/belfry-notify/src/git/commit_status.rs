//! States of commits, for a CommitStatus: posted as they change, without asking first.

use std::{fmt, sync::Arc, time::Duration};

use belfry_http::{Client, Clients, Url};
use tokio::time::Instant;

use super::{
    GitHost, Match, Origin, State, Step,
    auth::Auth,
    context::{fit, one_line},
    hosts::Host,
    repository::{Repository, Site},
    verdict::{stop, taken},
};
use crate::{
    Attempted, Misconfigured, Settings,
    line::{Line, Stop, Transport},
    protocol::{Unsent, Verdict},
    secrecy::Secrecy,
    settings::Resolved,
    text,
};

/// Hex digits by which people know a commit.
const SHORT: usize = 12;

/// What a commit is told under one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where the commit is.
    pub repository: Repository,
    /// The commit, whole: 40 or 64 hex digits.
    pub commit: String,
    /// Tells it from other statuses of the commit (see [`super::context::context`]). Shortened where the host demands it.
    pub context: String,
    /// The state.
    pub state: CommitState,
    /// How a commit is shown that was superseded; `None`: in the host's own word for it.
    pub superseded_as: Option<SupersededAs>,
    /// What happened, for people, with what matters first: cut at a word where the host demands it.
    pub description: String,
    /// Where it leads; left out when it is no http or https URL, or too long for the host.
    pub target_url: Option<String>,
}

/// The state of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitState {
    /// It is on its way.
    Pending,
    /// It is live.
    Success,
    /// It failed.
    Failure,
    /// A newer commit took its place before it was live.
    Superseded {
        /// The commit that did, if it is known.
        by: Option<String>,
    },
}

/// How a commit is shown that was superseded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupersededAs {
    /// As if it were still on its way.
    Pending,
    /// As a success: nothing is wrong with it.
    Success,
    /// As a failure: it never went live.
    Failure,
}

/// What is known of the attempt before at the same context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// How it ended, or there was none.
    Sure,
    /// Nothing: a crash, a timeout. What it sent may still be on its way.
    Unsure,
}

/// Posts states of commits to one git host, with the settings and Secrets that it was built from.
pub struct StatusNotifier {
    site: Site,
    auth: Auth,
    client: Client,
    timeout: Duration,
    secrecy: Secrecy,
}

impl StatusNotifier {
    /// What posts states for a Provider with the Secrets of now. As cheap as [`crate::build`].
    ///
    /// # Errors
    /// When the Provider isn't of a git host, or it or one of its Secrets must be mended first.
    pub fn new(settings: &Settings<'_>, http: &Arc<Clients>) -> Result<Self, Misconfigured> {
        Self::open(settings, http).map_err(|error| error.of(settings.provider))
    }

    fn open(settings: &Settings<'_>, http: &Arc<Clients>) -> Result<Self, Misconfigured> {
        let resolved = Resolved::new(settings)?;
        let site = Site::of(&resolved)?;
        let auth = site.host.auth(&resolved, &site.server)?;
        let (client, timeout, secrecy) = (resolved.client(http)?, resolved.timeout()?, Secrecy::of(&resolved));
        Ok(Self { site, auth, client, timeout, secrecy })
    }

    /// The longest that [`StatusNotifier::post`] takes.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The git host.
    pub fn host(&self) -> Host {
        self.site.host
    }

    /// Makes one attempt: writes the state; when nothing is known of the attempt before, reads first, and afterwards
    /// whether it shows. If it doesn't, the outcome is to try again, and unknown: the next attempt is unsure too. Errors
    /// are masked.
    pub async fn post(&self, status: &Status, known: Known) -> Attempted {
        self.post_over(&self.client, status, known).await
    }

    pub(crate) async fn post_over(&self, transport: &dyn Transport, status: &Status, known: Known) -> Attempted {
        let line = Line::new(transport, Instant::now() + self.timeout);
        let result = match self.host_of(status) {
            Ok(host) => match self.fitted(status) {
                Ok(status) => self.tell(host.as_ref(), status, known, &line).await,
                Err(unsent) => Err(unsent.into()),
            },
            Err(stop) => Err(stop),
        };
        let ends_context = matches!(result, Err(Stop::Answered(_, Verdict::Full(_), _)));
        Attempted { status: line.status(), outcome: line.conclude(result, &self.secrecy), ends_context }
    }

    /// What writes to the status's repository, which must be the Provider's: its address may have changed since.
    fn host_of(&self, status: &Status) -> Result<Box<dyn GitHost>, Stop> {
        let Repository { host, address } = &status.repository;
        let ours = match &self.site.repository {
            Some(repository) => *repository == status.repository,
            None => *host == self.site.host && address.server() == self.site.server.server(),
        };
        if !ours {
            let text = format!("the Provider's address is another one now: '{}' is not there", status.repository);
            return Err(Stop::Misconfigured(text));
        }
        host.open(address).map_err(|what| Stop::Misconfigured(format!("'{}' {what}", status.repository)))
    }

    /// The status as the host takes it.
    fn fitted(&self, status: &Status) -> Result<super::Status, Unsent> {
        let commit = &status.commit;
        if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Unsent::Reject("the commit is no whole hash".into()));
        }
        if one_line(&status.context).is_empty() {
            return Err(Unsent::Reject("the context is empty".into()));
        }
        let limits = self.site.host.limits();
        let name = one_line(&status.context);
        Ok(super::Status {
            sha: commit.to_ascii_lowercase(),
            id: fit(&status.context, self.site.host).into_owned(),
            state: state(status),
            name: text::cut(&name, limits.name).into_owned(),
            description: text::cut_words(&described(status), limits.description).into_owned(),
            summary: None,
            link: status.target_url.as_deref().and_then(|link| shown(link, limits.link)),
            origin: Origin::CommitStatus,
        })
    }

    async fn tell(&self, host: &dyn GitHost, status: super::Status, known: Known, line: &Line<'_>) -> Result<(), Stop> {
        if known == Known::Unsure && self.shows(host, &status, Match::Whole, line).await? {
            return Ok(());
        }
        let status = self.write(host, status, line).await?;
        // What the attempt before sent may have arrived after it.
        if known == Known::Unsure && !self.shows(host, &status, Match::State, line).await? {
            return Err(Stop::Unconfirmed("the host took the status, and doesn't show it"));
        }
        Ok(())
    }

    async fn write(&self, host: &dyn GitHost, status: super::Status, line: &Line<'_>) -> Result<super::Status, Stop> {
        let answer = self.auth.send(host.post(&status)?, line).await?;
        let (answer, status) = match host.instead(&answer, &status) {
            Some(state) => {
                let status = super::Status { state, ..status };
                (self.auth.send(host.post(&status)?, line).await?, status)
            }
            None => (answer, status),
        };
        match host.classify(Step::Post, &answer, &status) {
            Verdict::Taken => Ok(status),
            verdict => Err(stop(answer, verdict, line.now())),
        }
    }

    async fn shows(
        &self,
        host: &dyn GitHost,
        status: &super::Status,
        matching: Match,
        line: &Line<'_>,
    ) -> Result<bool, Stop> {
        let mut skip = 0;
        loop {
            let answer = self.auth.send(host.read(status, skip)?, line).await?;
            let verdict = host.classify(Step::Read, &answer, status);
            let answer = taken(answer, verdict, line.now())?;
            if host.shows(&answer, status, matching) {
                return Ok(true);
            }
            match host.further(&answer, status, skip) {
                Some(further) => skip = further,
                None => return Ok(false),
            }
        }
    }
}

impl fmt::Debug for StatusNotifier {
    /// The type only: the rest is made of secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatusNotifier({})", self.site.host.provider_type())
    }
}

fn state(status: &Status) -> State {
    match (&status.state, status.superseded_as) {
        (CommitState::Pending, _) => State::Pending,
        (CommitState::Success, _) => State::Success,
        (CommitState::Failure, _) => State::Failure,
        (CommitState::Superseded { .. }, None) => State::Superseded,
        (CommitState::Superseded { .. }, Some(SupersededAs::Pending)) => State::Pending,
        (CommitState::Superseded { .. }, Some(SupersededAs::Success)) => State::Success,
        (CommitState::Superseded { .. }, Some(SupersededAs::Failure)) => State::Failure,
    }
}

/// The description on one line; what superseded the commit goes first.
fn described(status: &Status) -> String {
    let said = one_line(&status.description);
    let CommitState::Superseded { by } = &status.state else { return said };
    let superseded = match by.as_deref().map(one_line).filter(|by| !by.is_empty()) {
        Some(by) if by.len() >= 40 && by.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("superseded by {}", &by[..SHORT])
        }
        Some(by) => format!("superseded by {by}"),
        None => "superseded".into(),
    };
    if said.is_empty() { superseded } else { format!("{superseded}: {said}") }
}

/// A link that every host takes and that gives nothing away.
fn shown(link: &str, limit: usize) -> Option<String> {
    let url: Url = link.trim().parse().ok()?;
    let fit = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    (fit && url.as_str().chars().count() <= limit).then(|| url.into())
}
