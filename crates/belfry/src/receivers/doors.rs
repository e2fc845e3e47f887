//! The paths that are open, each with the Receiver and the very Secret that it was made of: who rotates a token changes
//! path and verification in one step.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use belfry_api::OIDC_RECEIVER;
use belfry_core::{
    ConfigKey,
    config::{Problem, ReceiverRule, Snapshot},
    limits,
    secret::SecretData,
};
use belfry_receive::{Path, check_secret, path};
use futures::{StreamExt as _, stream};
use tokio::sync::watch;

use super::{Receivers, ledger::Entry};
use crate::server::stopped;

/// Secrets that are read at a time.
const READERS: usize = 8;
/// Secrets that are read a second, for many Receivers.
const PER_SECOND: usize = 10;
/// How soon a Secret that could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A Receiver as it is now.
#[derive(Debug)]
pub(super) struct Door {
    /// The Receiver.
    pub(super) rule: Arc<ReceiverRule>,
    /// What is remembered of it.
    pub(super) entry: Arc<Entry>,
    /// The Secret, if it has one and it could be read.
    pub(super) secret: Option<Arc<SecretData>>,
    /// Whether it takes webhooks.
    pub(super) state: DoorState,
}

/// Whether a Receiver takes webhooks.
#[derive(Clone, Debug)]
pub(super) enum DoorState {
    /// It does, on this path.
    Open(Path),
    /// It would, on this path, if it weren't suspended.
    Suspended(Option<Path>),
    /// It has to be mended.
    Flawed(Problem),
    /// Its Secret is missing or lacks something.
    NoToken(Problem),
    /// Its Secret was never read, and can't be now.
    Unknown(String),
}

/// All Receivers.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Those that are open. Several can share a path: what name and namespace make together is not unique, and for
    /// `generic-oidc` anybody can know it. Each decides for itself.
    open: HashMap<Path, Vec<Arc<Door>>>,
    /// All of them.
    pub(super) all: BTreeMap<Arc<ConfigKey>, Arc<Door>>,
    /// Some path can't be known yet.
    pub(super) unknown: bool,
    /// There is a configuration that these come from.
    pub(super) built: bool,
}

impl Doors {
    /// Who answers on a path.
    pub(super) fn at(&self, path: &Path) -> &[Arc<Door>] {
        self.open.get(path).map(Vec::as_slice).unwrap_or_default()
    }
}

/// A Secret as far as it is known; the error is why it isn't.
type Known = Result<Option<Arc<SecretData>>, String>;

/// Secrets by namespace and name.
#[derive(Default)]
struct Secrets(HashMap<(String, String), Known>);

impl Secrets {
    fn of(&self, rule: &ReceiverRule) -> Known {
        let Some(place) = place(rule) else { return Ok(None) };
        self.0.get(&place).cloned().unwrap_or_else(|| Err("it was not read yet".to_owned()))
    }
}

/// Where the Secret of a Receiver is.
fn place(rule: &ReceiverRule) -> Option<(String, String)> {
    let reference = rule.spec.secret_ref.as_ref().filter(|_| rule.spec.type_ != OIDC_RECEIVER)?;
    Some((rule.key.namespace.to_string(), reference.name.clone()))
}

impl Receivers {
    /// Keeps doors, paths and reports up to date until `stop`.
    pub async fn keep(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut version = self.configuration.version();
        let mut secrets = Secrets::default();
        let mut before = Arc::<Snapshot>::default();
        loop {
            version.borrow_and_update();
            let pause = self.refresh(&mut secrets, &mut before).await;
            tokio::select! {
                Ok(()) = version.changed() => {}
                () = tokio::time::sleep(pause) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    /// Opens the doors of a configuration that is already loaded.
    pub async fn open(&self) {
        self.refresh(&mut Secrets::default(), &mut Arc::default()).await;
    }

    /// Takes in the configuration and reads the Secrets anew. Says when to do so again.
    async fn refresh(&self, secrets: &mut Secrets, before: &mut Arc<Snapshot>) -> Duration {
        if !self.configuration.is_compiled() {
            return AGAIN;
        }
        let snapshot = self.configuration.snapshot();
        let changed = !Arc::ptr_eq(&snapshot, before);
        if changed {
            // What is suspended or gone is so at once, whatever Secrets must be read for others.
            self.rebuild(&snapshot, secrets);
        }
        let mut wanted: HashMap<(String, String), bool> = HashMap::new();
        for rule in snapshot.receivers().filter(|rule| rule.flaw.is_none()) {
            let Some(place) = place(rule) else { continue };
            let same = before.receiver(&rule.key).is_some_and(|known| Arc::ptr_eq(known, rule));
            *wanted.entry(place).or_default() |= !same;
        }
        let reads = wanted.into_iter().map(|(place, fresh)| async move {
            let read = self.environment.secret(&place.0, &place.1, fresh).await;
            (place, read)
        });
        let read: Vec<_> = stream::iter(reads).buffer_unordered(READERS).collect().await;
        let old = std::mem::take(&mut secrets.0);
        for (place, read) in read {
            let kept = match (read, old.get(&place)) {
                // What was read once counts until the API server says otherwise.
                (Err(_), Some(Ok(known))) => Ok(known.clone()),
                (read, _) => read,
            };
            secrets.0.insert(place, kept);
        }
        *before = snapshot;
        self.rebuild(before, secrets);
        if self.doors.load().unknown {
            return AGAIN;
        }
        limits::SECRET_AGE.max(Duration::from_secs((secrets.0.len() / PER_SECOND) as u64))
    }

    fn rebuild(&self, snapshot: &Snapshot, secrets: &Secrets) {
        let mut doors = Doors { built: true, ..Doors::default() };
        for rule in snapshot.receivers() {
            let (secret, state) = state(rule, secrets.of(rule));
            doors.unknown |= matches!(state, DoorState::Unknown(_));
            let door = Arc::new(Door { rule: rule.clone(), entry: self.ledger.of(&rule.key), secret, state });
            if let DoorState::Open(path) = &door.state {
                doors.open.entry(path.clone()).or_default().push(door.clone());
            }
            doors.all.insert(rule.key.clone(), door);
        }
        self.ledger.retain(|key| doors.all.contains_key(key));
        let reports = doors.all.values().filter_map(|door| super::state::report(door)).collect();
        self.doors.store(Arc::new(doors));
        self.reports.send_if_modified(|sent| {
            let news = **sent != reports;
            if news {
                *sent = Arc::new(reports);
            }
            news
        });
    }
}

fn state(rule: &ReceiverRule, known: Known) -> (Option<Arc<SecretData>>, DoorState) {
    if let Some(flaw) = &rule.flaw {
        return (None, DoorState::Flawed(flaw.clone()));
    }
    let namespace = &rule.key.namespace;
    let suspended = rule.spec.suspend;
    let secret = match known {
        Ok(secret) => secret,
        Err(_) if suspended => return (None, DoorState::Suspended(None)),
        Err(why) => return (None, DoorState::Unknown(why)),
    };
    let path = match check_secret(&rule.spec, namespace, secret.as_deref()) {
        Some(problem) => Err(problem),
        None => path(&rule.spec, namespace, &rule.key.name, secret.as_deref()),
    };
    let state = match path {
        path if suspended => DoorState::Suspended(path.ok()),
        Ok(path) => DoorState::Open(path),
        Err(problem) => DoorState::NoToken(problem),
    };
    (secret, state)
}
