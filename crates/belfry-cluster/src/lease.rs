//! Leadership by a Lease, for work that one replica does: as client-go's leader election, on the same objects.

mod candidate;

use std::{future::Future, pin::pin, time::Duration};

use http::Method;
use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

pub use self::candidate::Terms;
use self::candidate::{Answer, Candidate, Record, Request, Spec};
use crate::{Cluster, Error, call, outage::Outage};

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
/// How long one request may take: a leader can try twice.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to let go.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is to be led, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// The Lease's namespace: the one that Belfry runs in.
    pub namespace: String,
    /// The Lease's name. Belfry's role allows `belfry` only.
    pub name: String,
    /// Who this is; no other process may ever have the same, nor this one after a restart.
    pub identity: String,
    /// How long things take.
    pub terms: Terms,
}

impl Candidacy {
    /// With the usual terms: a leader that dies is followed by another within 17 s.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>, identity: impl Into<String>) -> Self {
        let (namespace, name, identity) = (namespace.into(), name.into(), identity.into());
        Self { namespace, name, identity, terms: Terms::default() }
    }
}

/// Whether this process leads.
///
/// It no longer holds before any other process can lead, also when the API server is away, another has the Lease, or
/// this process was not let run for a while: what it guards is to ask each time, and what it has begun is to end within
/// the 5 s that then remain.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

/// Longer than any process lives; a clock takes it without overflow.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

impl Leadership {
    /// Of the only one that there is: it leads as long as it lives.
    pub fn sole() -> Self {
        Self::until(watch::channel(Some(Instant::now() + FOR_EVER)).1)
    }

    /// Of one that leads until when another says, if it leads.
    pub fn until(said: watch::Receiver<Option<Instant>>) -> Self {
        Self(said)
    }

    /// Whether it leads now, by the clock: whoever was to say that it is over may not have been let run either.
    pub fn holds(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it leads, or no longer does. False once that can't come any more, as the election is over.
    pub async fn becomes(&mut self, leads: bool) -> bool {
        self.0.wait_for(|until| until.is_some() == leads).await.is_ok()
    }

    /// Waits until the election is over and the Lease is let go.
    pub async fn ended(&mut self) {
        while self.0.changed().await.is_ok() {}
    }
}

impl Cluster {
    /// Stands for election until `stop`.
    ///
    /// Then it no longer leads, and the Lease is let go. So stop what it guards first, then this, and await its
    /// [end](Leadership::ended).
    pub fn lead(&self, candidacy: Candidacy, stop: impl Future<Output = ()> + Send + 'static) -> Leadership {
        let (says, leads) = watch::channel(None);
        let election = Election {
            client: self.inner.leases.clone(),
            candidate: Candidate::new(candidacy.identity, candidacy.terms),
            folder: format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", candidacy.namespace),
            name: candidacy.name,
            retry: candidacy.terms.retry,
            says,
            outage: Outage::default(),
        };
        tokio::spawn(election.run(stop));
        Leadership(leads)
    }
}

struct Election {
    client: Client,
    candidate: Candidate,
    folder: String,
    name: String,
    retry: Duration,
    /// Until when it leads, if it does.
    says: watch::Sender<Option<Instant>>,
    outage: Outage,
}

impl Election {
    async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        loop {
            let sent = Instant::now();
            let Some(request) = self.candidate.next(Timestamp::now()) else {
                let pause = sleep(self.pause());
                if self.until(pause, &mut stop).await.is_none() {
                    break;
                }
                self.candidate.wake(Instant::now());
                continue;
            };
            let answer = timeout(PATIENCE, ask(self.client.clone(), self.folder.clone(), self.name.clone(), request));
            let Some(answer) = self.until(answer, &mut stop).await else { break };
            let answer = match answer {
                Ok(Ok(answer)) => {
                    self.outage.over(format_args!("the Lease {}", self.name));
                    answer
                }
                Ok(Err(error)) => self.failed(&error.explain()),
                Err(_) => self.failed("no answer within 5 s"),
            };
            self.candidate.took(sent, Instant::now(), answer);
            self.say();
        }
        self.says.send_replace(None);
        if timeout(FAREWELL, self.let_go()).await.is_err() {
            tracing::debug!("the Lease {} could not be let go in time; it runs out by itself", self.name);
        }
    }

    /// Waits for something, says meanwhile when leadership runs out, and gives nothing when it is to stop first.
    async fn until<T>(
        &self,
        something: impl Future<Output = T>,
        stop: &mut (impl Future<Output = ()> + Unpin),
    ) -> Option<T> {
        let mut something = pin!(something);
        let mut limit = *self.says.borrow();
        loop {
            tokio::select! {
                // Time that has run out counts, though the answer came in the same moment.
                biased;
                () = &mut *stop => return None,
                () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => {
                    limit = None;
                    self.say();
                }
                it = &mut something => return Some(it),
            }
        }
    }

    /// Says until when it leads. Woken is only whom it concerns that it begins or ends.
    fn say(&self) {
        let now = Instant::now();
        let until = self.candidate.leads_until().filter(|until| now < *until);
        let changed = self.says.send_if_modified(|said| std::mem::replace(said, until).is_some() != until.is_some());
        let leads = until.is_some();
        match (changed, leads) {
            (false, _) => {}
            (true, true) => tracing::info!("leads by the Lease {}", self.name),
            (true, false) => tracing::warn!("no longer leads by the Lease {}", self.name),
        }
    }

    fn failed(&mut self, why: &str) -> Answer {
        self.outage.failed(format_args!("the Lease {} can't be had: {why}", self.name));
        Answer::Unknown
    }

    /// Candidates that began together don't come together.
    fn pause(&self) -> Duration {
        self.retry + self.retry.mul_f64(0.2 * crate::backoff::share())
    }

    /// Lets others lead at once. What was sent last may have been done or not: what counts is what stands there.
    async fn let_go(&mut self) {
        let (client, folder, name) = (&self.client, &self.folder, &self.name);
        let read = ask(client.clone(), folder.clone(), name.clone(), Request::Read).await;
        let Ok(Answer::Record(record)) = read else { return };
        let version = record.version.clone();
        self.candidate.know(record, Instant::now());
        if !self.candidate.is_mine() {
            return;
        }
        let spec = self.candidate.released(Timestamp::now());
        match ask(client.clone(), folder.clone(), name.clone(), Request::Replace(version, spec)).await {
            Ok(Answer::Record(_)) => tracing::info!("let go of the Lease {name}"),
            Ok(_) => {}
            Err(error) => tracing::debug!("can't let go of the Lease {name}: {}", error.explain()),
        }
    }
}

impl Drop for Election {
    /// However it ends: nobody renews the Lease any more.
    fn drop(&mut self) {
        self.says.send_replace(None);
    }
}

/// Sends one request.
async fn ask(client: Client, folder: String, name: String, request: Request) -> Result<Answer, Error> {
    let one = format!("{folder}/{name}");
    let (what, method, path, body) = match request {
        Request::Read => ("reading", Method::GET, &one, None),
        Request::Create(spec) => {
            let metadata = json!({ "name": name, "labels": { "app.kubernetes.io/name": "belfry" } });
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec,
            });
            ("making", Method::POST, &folder, Some((JSON, lease)))
        }
        // Patched rather than replaced: labels, annotations and owners are others'.
        Request::Replace(version, spec) => {
            let patch = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
            ("taking", Method::PATCH, &one, Some((MERGE_PATCH, patch)))
        }
    };
    let what = format!("{what} the Lease {name}");
    let body = body.as_ref().map(|(kind, value)| (*kind, value));
    let reads = method == Method::GET;
    match call::send(&client, &what, method, path, body).await {
        Ok(lease) => record(&lease).map(Answer::Record).ok_or_else(|| {
            let message = "the answer is no Lease".to_owned();
            Error::Refused { what, code: 0, message }
        }),
        Err(error) if reads && error.is_not_found() => Ok(Answer::Missing),
        Err(Error::Refused { code: 409, .. }) => Ok(Answer::Conflict),
        // It was there, and was removed.
        Err(error) if path == &one && error.is_not_found() => Ok(Answer::Conflict),
        Err(error) => Err(error),
    }
}

fn record(lease: &Value) -> Option<Record> {
    let version = lease["metadata"]["resourceVersion"].as_str()?.to_owned();
    let spec = match &lease["spec"] {
        Value::Null => Spec::default(),
        spec => serde_json::from_value(spec.clone()).ok()?,
    };
    Some(Record { version, spec })
}
