//! What Prometheus is told: the peer's event metrics under their names, and what the peer can't tell: deliveries, the
//! backlog, circuits, the store.

use std::{sync::atomic::AtomicU64, time::Duration};

use belfry_store::{COMMIT_BUCKETS, Stats, Store};
use http::StatusCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    /// Requests on the events port.
    pub event_requests: HttpMetrics,
    /// Requests on the receivers' port.
    pub receiver_requests: HttpMetrics,
    webhooks: Family<WebhookLabels, Counter>,
    triggers: Family<TriggerLabels, Counter>,
    events: Family<EventLabels, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    commit_statuses: Family<CommitStatusLabels, Counter>,
    observations: Family<ObservationLabels, Counter>,
    latency: Family<TypeLabels, Histogram>,
    attempts: Family<TypeLabels, Histogram>,
    gauges: Gauges,
}

/// What became of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventResult {
    /// Stored, with its deliveries.
    Stored,
    /// Known already: counted on the event that it repeats.
    Repeat,
    /// Not an event.
    Invalid,
    /// The store could not take it: the sender tries again.
    Refused,
}

impl EventResult {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Repeat => "repeat",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    result: &'static str,
}

/// One Provider's deliveries that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// Namespace of the Provider.
    pub namespace: String,
    /// Name of the Provider.
    pub provider: String,
    /// Its type.
    pub r#type: String,
    /// `delivered`, `retry`, `misconfigured`, `dead`, `skipped`.
    pub outcome: &'static str,
}

/// One CommitStatus' attempts that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommitStatusLabels {
    /// Namespace of the CommitStatus.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// As of a delivery; or `ended`, when the git host takes no more of the context, or `no_commit`.
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ObservationLabels {
    kind: String,
    result: &'static str,
}

/// One Receiver's webhooks of which the same became.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabels {
    /// Namespace of the Receiver.
    pub namespace: String,
    /// Name of the Receiver.
    pub receiver: String,
    /// Its type.
    pub r#type: String,
    /// `accepted`, `ignored`, `repeat`, `failed`, or why it was refused.
    pub verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TriggerLabels {
    kind: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProviderLabels {
    namespace: String,
    provider: String,
}

#[derive(Default)]
struct Gauges {
    pending: Family<ProviderLabels, Gauge>,
    oldest: Family<ProviderLabels, Gauge<f64, AtomicU64>>,
    down: Family<ProviderLabels, Gauge>,
    queue: Gauge,
    bytes: Gauge,
    writable: Gauge,
    temporary: Gauge,
    refused_objects: Gauge,
    crd_differences: Gauge,
    waits: Gauge,
}

/// The state of one Provider's backlog.
pub struct Backlog {
    /// Namespace of the Provider.
    pub namespace: String,
    /// Name of the Provider.
    pub provider: String,
    /// Undelivered deliveries.
    pub pending: u64,
    /// Age of the oldest.
    pub oldest: Duration,
    /// Its circuit is open.
    pub down: bool,
}

/// What is read off the store and the configuration when Prometheus asks.
pub struct Readings {
    /// Waits for verdicts.
    pub waits: usize,
    /// What the store tells of itself.
    pub stats: Stats,
    /// Configuration objects that are not in force as written.
    pub refused_objects: usize,
    /// Providers with a backlog, or that are down.
    pub backlogs: Vec<Backlog>,
}

impl Metrics {
    /// All metrics, registered under their names.
    pub fn new(store: Store) -> Self {
        let mut registry = Registry::default();
        let event_requests = HttpMetrics::register(&mut registry, "gotk_event_http", "/");
        let receiver_requests = HttpMetrics::register(&mut registry, "gotk_receiver_http", "/hook/");
        let webhooks = Family::default();
        registry.register("belfry_webhooks", "Webhooks to Receivers, by what became of them", webhooks.clone());
        let triggers = Family::default();
        registry.register(
            "belfry_triggers",
            "Attempts to ask for a reconciliation, by outcome: done, retry, or dead",
            triggers.clone(),
        );
        let events = Family::default();
        registry.register("belfry_events", "Events that were posted, by what became of them", events.clone());
        let deliveries = Family::default();
        registry.register("belfry_deliveries", "Attempts at deliveries, by outcome", deliveries.clone());
        let commit_statuses = Family::default();
        registry.register(
            "belfry_commit_statuses",
            "Attempts to show a rollout on a git host, by what became of them",
            commit_statuses.clone(),
        );
        let observations = Family::default();
        registry.register(
            "belfry_observations",
            "Statuses of Flux objects that may decide a rollout: news, or known already",
            observations.clone(),
        );
        let latency = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register(
            "belfry_delivery_latency_seconds",
            "Time from the arrival of an event to its delivery",
            latency.clone(),
        );
        let attempts = Family::new_with_constructor(seconds as fn() -> Histogram);
        registry.register("belfry_attempt_duration_seconds", "Time that one attempt took", attempts.clone());
        registry.register_collector(Box::new(CommitTimes(store)));
        let gauges = Gauges::default();
        registry.register("belfry_deliveries_pending", "Undelivered deliveries", gauges.pending.clone());
        registry.register(
            "belfry_deliveries_oldest_pending_seconds",
            "Age of the oldest undelivered delivery",
            gauges.oldest.clone(),
        );
        registry.register("belfry_provider_down", "1 while nothing but probes goes to it", gauges.down.clone());
        registry.register("belfry_store_queue", "Events that wait for the store's writer", gauges.queue.clone());
        registry.register("belfry_waits", "Waits for verdicts", gauges.waits.clone());
        registry.register("belfry_store_bytes", "Size of the store", gauges.bytes.clone());
        registry.register("belfry_store_writable", "1 when the last commit succeeded", gauges.writable.clone());
        registry.register(
            "belfry_store_temporary",
            "1 when the store lies in a temporary folder and is lost with it",
            gauges.temporary.clone(),
        );
        registry.register(
            "belfry_configuration_refused",
            "Configuration objects that are not in force as written",
            gauges.refused_objects.clone(),
        );
        registry.register(
            "belfry_crd_differences",
            "Differences between the served CRDs and Belfry's own",
            gauges.crd_differences.clone(),
        );
        Self {
            registry,
            event_requests,
            receiver_requests,
            webhooks,
            triggers,
            events,
            deliveries,
            commit_statuses,
            observations,
            latency,
            attempts,
            gauges,
        }
    }

    /// Counts a POST.
    pub fn count_event(&self, result: EventResult) {
        self.events.get_or_create(&EventLabels { result: result.as_str() }).inc();
    }

    /// Counts a webhook.
    pub fn count_webhook(&self, labels: WebhookLabels) {
        self.webhooks.get_or_create(&labels).inc();
    }

    /// Counts an attempt to ask for the reconciliation of an object of this kind.
    pub fn count_trigger(&self, kind: &str, outcome: &'static str) {
        self.triggers.get_or_create(&TriggerLabels { kind: kind.to_owned(), outcome }).inc();
    }

    /// Counts an attempt.
    pub fn count_attempt(&self, labels: DeliveryLabels, took: Duration) {
        let type_ = TypeLabels { r#type: labels.r#type.clone() };
        self.attempts.get_or_create(&type_).observe(took.as_secs_f64());
        self.deliveries.get_or_create(&labels).inc();
    }

    /// Counts an attempt at a commit status.
    pub fn count_commit_status(&self, labels: &CommitStatusLabels) {
        self.commit_statuses.get_or_create(labels).inc();
    }

    /// Counts what a watch saw of an object of this kind.
    pub fn count_observation(&self, kind: &str, is_news: bool) {
        let result = if is_news { "news" } else { "known" };
        self.observations.get_or_create(&ObservationLabels { kind: kind.to_owned(), result }).inc();
    }

    /// Notes how long an event took to its destination.
    pub fn observe_latency(&self, provider_type: &str, latency: Duration) {
        let labels = TypeLabels { r#type: provider_type.to_owned() };
        self.latency.get_or_create(&labels).observe(latency.as_secs_f64());
    }

    /// Notes that the store is in a temporary folder.
    pub fn set_temporary(&self, temporary: bool) {
        self.gauges.temporary.set(i64::from(temporary));
    }

    /// Notes how many differences there are between the served CRDs and ours.
    pub fn set_crd_differences(&self, differences: usize) {
        self.gauges.crd_differences.set(i64::try_from(differences).unwrap_or(i64::MAX));
    }

    /// Everything in Prometheus' text form.
    pub fn render(&self, readings: &Readings) -> String {
        let gauges = &self.gauges;
        gauges.queue.set(clamp(readings.stats.queued as u64));
        gauges.bytes.set(clamp(readings.stats.db_bytes));
        gauges.writable.set(i64::from(readings.stats.healthy));
        gauges.refused_objects.set(clamp(readings.refused_objects as u64));
        gauges.waits.set(clamp(readings.waits as u64));
        gauges.pending.clear();
        gauges.oldest.clear();
        gauges.down.clear();
        for backlog in &readings.backlogs {
            let labels = ProviderLabels { namespace: backlog.namespace.clone(), provider: backlog.provider.clone() };
            gauges.pending.get_or_create(&labels).set(clamp(backlog.pending));
            gauges.oldest.get_or_create(&labels).set(backlog.oldest.as_secs_f64());
            gauges.down.get_or_create(&labels).set(i64::from(backlog.down));
        }
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn clamp(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0])
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: &'static str,
    handler: &'static str,
    method: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandlerLabels {
    service: &'static str,
    handler: &'static str,
}

/// The three metrics that the peer has of each of its HTTP servers.
pub struct HttpMetrics {
    handler: &'static str,
    duration: Family<RequestLabels, Histogram>,
    size: Family<RequestLabels, Histogram>,
    inflight: Family<HandlerLabels, Gauge>,
}

impl HttpMetrics {
    fn register(registry: &mut Registry, prefix: &str, handler: &'static str) -> Self {
        let buckets = || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
        let sizes = || Histogram::new([100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]);
        let duration = Family::new_with_constructor(buckets as fn() -> Histogram);
        let size = Family::new_with_constructor(sizes as fn() -> Histogram);
        let inflight = Family::default();
        registry.register(
            format!("{prefix}_request_duration_seconds"),
            "The latency of the HTTP requests",
            duration.clone(),
        );
        registry.register(format!("{prefix}_response_size_bytes"), "The size of the HTTP responses", size.clone());
        registry.register(
            format!("{prefix}_requests_inflight"),
            "The number of inflight requests being handled at the same time",
            inflight.clone(),
        );
        Self { handler, duration, size, inflight }
    }

    /// Notes that a request is being worked on, until [`Observed::finish`] or the end of the value.
    pub fn start(&self) -> Observed<'_> {
        let inflight = self.inflight.get_or_create(&HandlerLabels { service: "", handler: self.handler }).clone();
        inflight.inc();
        Observed { metrics: self, inflight }
    }
}

/// A request that is being worked on.
pub struct Observed<'a> {
    metrics: &'a HttpMetrics,
    inflight: Gauge,
}

impl Observed<'_> {
    /// Notes how it ended. All answers of these ports are empty.
    pub fn finish(self, method: &str, status: StatusCode, took: Duration) {
        // The method is the client's to choose: a bounded set of labels only.
        let method = match method {
            "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => method,
            _ => "other",
        };
        let labels = RequestLabels {
            service: "",
            handler: self.metrics.handler,
            method: method.to_owned(),
            code: status.as_u16(),
        };
        self.metrics.duration.get_or_create(&labels).observe(took.as_secs_f64());
        self.metrics.size.get_or_create(&labels).observe(0.0);
    }
}

impl Drop for Observed<'_> {
    fn drop(&mut self) {
        self.inflight.dec();
    }
}

/// The store keeps its own histogram, which is read off when Prometheus asks.
#[derive(Debug)]
struct CommitTimes(Store);

impl Collector for CommitTimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let times = self.0.stats().commit_times;
        let ends = COMMIT_BUCKETS.into_iter().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = ends.zip(times.buckets).collect();
        let count = times.buckets.iter().sum();
        encoder
            .encode_descriptor(
                "belfry_store_commit_seconds",
                "Time of one commit of the store",
                None,
                prometheus_client::metrics::MetricType::Histogram,
            )?
            .encode_histogram::<NoLabelSet>(times.sum.as_secs_f64(), count, &buckets, None)
    }
}
