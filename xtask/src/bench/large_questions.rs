//! What is asked of a large store: every list by each of its filters, and by those that people combine.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::large_client::Client;

/// Objects whose rollouts are looked at beforehand.
const SAMPLES: u64 = 200;
/// Microseconds that the log tells of.
const SPAN: u64 = 30 * 86_400_000_000;

/// A question, in as many forms as there are turns.
pub struct Question {
    /// What is asked.
    pub name: &'static str,
    /// As a path, for a turn.
    pub path: fn(&Known, u64) -> String,
    /// It is answered by a stream.
    pub streams: bool,
}

/// What can be asked about.
pub struct Known {
    /// Where.
    pub api: SocketAddr,
    now: u64,
    objects: Vec<Object>,
    /// Where pages of objects end.
    places: Vec<String>,
    rollouts: Vec<Rollout>,
    deliveries: Vec<i64>,
}

/// An object.
struct Object {
    cluster: String,
    kind: String,
    namespace: String,
    name: String,
}

/// A rollout of it.
struct Rollout {
    cluster: String,
    object: String,
    revision: String,
    event: i64,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A number for a turn: the same each time, and unlike that of the turn before.
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn pick<T>(of: &[T], turn: u64) -> &T {
    &of[(mix(turn, 11) % of.len() as u64) as usize]
}

impl Known {
    /// Asks the server what it has.
    ///
    /// # Errors
    /// When it has too little.
    pub fn look(api: SocketAddr) -> anyhow::Result<Self> {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
        let mut known = Self { api, now, objects: vec![], places: vec![], rollouts: vec![], deliveries: vec![] };
        let mut client = Client::connect(api)?;
        let mut list = |path: &str| -> anyhow::Result<Value> {
            serde_json::from_slice(&client.get(path)?.body).with_context(|| format!("{path} has no JSON"))
        };
        let mut path = "/api/v1/objects".to_owned();
        loop {
            let page = list(&path)?;
            for item in page["items"].as_array().into_iter().flatten().filter(|item| item["name"] != "images") {
                known.objects.push(Object {
                    cluster: text(&item["cluster"]),
                    kind: text(&item["kind"]),
                    namespace: text(&item["namespace"]),
                    name: text(&item["name"]),
                });
            }
            let Some(cursor) = page["cursor"].as_str() else { break };
            known.places.push(cursor.to_owned());
            path = format!("/api/v1/objects?cursor={cursor}");
        }
        known.objects.retain(|object| object.cluster.starts_with("cluster-") && !object.kind.starts_with("Image"));
        ensure!(!known.objects.is_empty() && !known.places.is_empty(), "there are no objects in the store");
        for sample in 0..SAMPLES {
            let object = known.object(sample);
            let page = list(&format!("/api/v1/rollouts?{object}&limit=100"))?;
            let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
            known.rollouts.extend(items.iter().filter(|_| !items.is_empty()).take(20).map(|item| Rollout {
                cluster: text(&item["cluster"]),
                object: text(&item["object"]),
                revision: text(&item["revision"]),
                event: item["id"].as_i64().unwrap_or_default(),
            }));
            let page = list(&format!("/api/v1/deliveries?limit=5&until={}", known.time(sample)))?;
            known
                .deliveries
                .extend(page["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_i64()));
        }
        ensure!(!known.rollouts.is_empty() && !known.deliveries.is_empty(), "there are no rollouts or no deliveries");
        Ok(known)
    }

    /// One object, by all of its parts.
    fn object(&self, turn: u64) -> String {
        let Object { cluster, kind, namespace, name } = pick(&self.objects, turn);
        format!("object={kind}/{namespace}/{name}&cluster={cluster}")
    }

    fn namespace(&self, turn: u64) -> &str {
        &pick(&self.objects, turn).namespace
    }

    fn cluster(&self, turn: u64) -> &str {
        &pick(&self.objects, turn).cluster
    }

    /// A revision, and objects that went to it.
    pub fn revision(&self, turn: u64) -> &str {
        &pick(&self.rollouts, turn).revision
    }

    /// The hash of a commit.
    pub fn hash(&self, turn: u64) -> &str {
        let hashes =
            (0..100).map(|next| self.revision(mix(turn, next))).find_map(|revision| revision.split_once("sha1:"));
        hashes.map_or("0123456789", |(_, hash)| hash)
    }

    /// An id somewhere in the log.
    fn id(&self, turn: u64) -> u64 {
        self.now - mix(turn, 5) % (SPAN / 10 * 9)
    }

    /// The same as a time.
    fn time(&self, turn: u64) -> String {
        let ago = (self.now - self.id(turn)) / 1_000_000;
        format!("{ago}s")
    }
}

macro_rules! ask {
    ($name:literal, $path:expr) => {
        Question { name: $name, path: $path, streams: false }
    };
}

/// All of them.
pub fn questions() -> Vec<Question> {
    let mut all = events();
    all.extend(events_combined());
    all.extend(others());
    all.extend(deliveries());
    all.extend(streams());
    all
}

const EVENTS: &str = "/api/v1/events";

fn events() -> Vec<Question> {
    vec![
        ask!("events: newest", |_, _| EVENTS.into()),
        ask!("events: newest 20", |_, _| format!("{EVENTS}?limit=20")),
        ask!("events: a page deep inside", |k, n| format!("{EVENTS}?cursor={}", k.id(n))),
        ask!("events: until", |k, n| format!("{EVENTS}?until={}", k.time(n))),
        ask!("events: since", |k, n| format!("{EVENTS}?since={}", k.time(n))),
        ask!("events: object", |k, n| format!("{EVENTS}?{}", k.object(n))),
        ask!("events: object, 20", |k, n| format!("{EVENTS}?{}&limit=20", k.object(n))),
        ask!("events: object, in all clusters", |k, n| {
            let object = &pick(&k.objects, n);
            format!("{EVENTS}?object={}/{}/{}", object.kind, object.namespace, object.name)
        }),
        ask!("events: name", |k, n| format!("{EVENTS}?name={}", pick(&k.objects, n).name)),
        ask!("events: namespace", |k, n| format!("{EVENTS}?namespace={}", k.namespace(n))),
        ask!("events: kind", |k, n| format!("{EVENTS}?kind={}", pick(&k.objects, n).kind)),
        ask!("events: kind of which little was heard", |_, _| format!("{EVENTS}?kind=ImageRepository")),
        ask!("events: cluster", |k, n| format!("{EVENTS}?cluster={}", k.cluster(n))),
        ask!("events: cluster that is no more", |_, _| format!("{EVENTS}?cluster=retired")),
        ask!("events: what there isn't", |_, n| format!("{EVENTS}?namespace=none-{n}")),
        ask!("events: severity error", |_, _| format!("{EVENTS}?severity=error")),
        ask!("events: severity info", |_, _| format!("{EVENTS}?severity=info")),
        ask!("events: reason, common", |_, _| format!("{EVENTS}?reason=ReconciliationSucceeded")),
        ask!("events: reason, of failures", |_, n| {
            let reasons = ["HealthCheckFailed", "BuildFailed", "UpgradeFailed", "GitOperationFailed"];
            format!("{EVENTS}?reason={}", pick(&reasons, n))
        }),
        ask!("events: reason, rare", |_, _| format!("{EVENTS}?reason=PruneFailed")),
        ask!("events: reason, never heard", |_, n| format!("{EVENTS}?reason=Nothing{n}")),
        ask!("events: revision", |k, n| format!("{EVENTS}?revision={}", k.revision(n))),
        ask!("events: commit, 7 digits", |k, n| format!("{EVENTS}?revision={}", &k.hash(n)[..7])),
        ask!("events: revision, never heard", |_, n| format!("{EVENTS}?revision={:016x}{:016x}", mix(n, 1), mix(n, 2))),
        ask!("event", |k, n| format!("{EVENTS}/{}", pick(&k.rollouts, n).event)),
    ]
}

fn events_combined() -> Vec<Question> {
    vec![
        ask!("events: object and severity error", |k, n| format!("{EVENTS}?{}&severity=error", k.object(n))),
        ask!("events: object, from a cursor on", |k, n| format!("{EVENTS}?{}&cursor={}", k.object(n), k.id(n))),
        ask!("events: object, a day", |k, n| {
            let ago = (k.now - k.id(n)) / 3_600_000_000;
            format!("{EVENTS}?{}&since={}h&until={ago}h", k.object(n), ago + 24)
        }),
        ask!("events: object and revision", |k, n| {
            let Rollout { cluster, object, revision, .. } = pick(&k.rollouts, n);
            format!("{EVENTS}?object={object}&cluster={cluster}&revision={revision}")
        }),
        ask!("events: namespace and severity error", |k, n| format!(
            "{EVENTS}?namespace={}&severity=error",
            k.namespace(n)
        )),
        ask!("events: namespace and cluster", |k, n| format!(
            "{EVENTS}?namespace={}&cluster={}",
            k.namespace(n),
            k.cluster(n)
        )),
        ask!("events: namespace, from a cursor on", |k, n| {
            format!("{EVENTS}?namespace={}&cursor={}", k.namespace(n), k.id(n))
        }),
        ask!("events: cluster and severity error", |k, n| format!("{EVENTS}?cluster={}&severity=error", k.cluster(n))),
        ask!("events: cluster that is no more, until", |k, n| format!("{EVENTS}?cluster=retired&until={}", k.time(n))),
        ask!("events: kind and severity error", |k, n| {
            format!("{EVENTS}?kind={}&severity=error", pick(&k.objects, n).kind)
        }),
        ask!("events: kind and a reason of its own", |_, _| format!(
            "{EVENTS}?kind=HelmRelease&reason=RollbackSucceeded"
        )),
        ask!("events: kind and a reason of another", |_, _| {
            format!("{EVENTS}?kind=GitRepository&reason=ReconciliationSucceeded")
        }),
        ask!("events: namespace and reason", |k, n| format!(
            "{EVENTS}?namespace={}&reason=HealthCheckFailed",
            k.namespace(n)
        )),
        ask!("events: severity error, until", |k, n| format!("{EVENTS}?severity=error&until={}", k.time(n))),
        ask!("events: reason, from a cursor on", |k, n| format!("{EVENTS}?reason=BuildFailed&cursor={}", k.id(n))),
        ask!("events: severity and reason", |_, _| format!("{EVENTS}?severity=info&reason=UpgradeFailed")),
    ]
}

const ROLLOUTS: &str = "/api/v1/rollouts";
const OBJECTS: &str = "/api/v1/objects";

fn others() -> Vec<Question> {
    vec![
        ask!("rollouts: newest", |_, _| ROLLOUTS.into()),
        ask!("rollouts: a page deep inside", |k, n| format!("{ROLLOUTS}?cursor={}", k.id(n))),
        ask!("rollouts: object", |k, n| format!("{ROLLOUTS}?{}", k.object(n))),
        ask!("rollouts: namespace", |k, n| format!("{ROLLOUTS}?namespace={}", k.namespace(n))),
        ask!("rollouts: namespace, from a cursor on", |k, n| {
            format!("{ROLLOUTS}?namespace={}&cursor={}", k.namespace(n), k.id(n))
        }),
        ask!("rollouts: kind", |k, n| format!("{ROLLOUTS}?kind={}", pick(&k.objects, n).kind)),
        ask!("rollouts: cluster", |k, n| format!("{ROLLOUTS}?cluster={}", k.cluster(n))),
        ask!("rollouts: cluster that is no more", |_, _| format!("{ROLLOUTS}?cluster=retired")),
        ask!("rollouts: what there isn't", |_, n| format!("{ROLLOUTS}?namespace=none-{n}")),
        ask!("rollouts: revision", |k, n| format!("{ROLLOUTS}?revision={}", k.revision(n))),
        ask!("rollouts: commit, 7 digits", |k, n| format!("{ROLLOUTS}?revision={}", &k.hash(n)[..7])),
        ask!("rollouts: open", |_, _| format!("{ROLLOUTS}?state=pending,progressing")),
        ask!("rollouts: failed", |_, _| format!("{ROLLOUTS}?state=failed")),
        ask!("rollouts: superseded", |_, _| format!("{ROLLOUTS}?state=superseded")),
        ask!("rollouts: succeeded", |_, _| format!("{ROLLOUTS}?state=succeeded")),
        ask!("rollouts: failed, in a namespace", |k, n| format!(
            "{ROLLOUTS}?state=failed&namespace={}",
            k.namespace(n)
        )),
        ask!("rollout", |k, n| format!("{ROLLOUTS}/{}", pick(&k.rollouts, n).event)),
        ask!("objects: first page", |_, _| OBJECTS.into()),
        ask!("objects: a page deep inside", |k, n| format!("{OBJECTS}?cursor={}", pick(&k.places, n))),
        ask!("objects: namespace", |k, n| format!("{OBJECTS}?namespace={}", k.namespace(n))),
        ask!("objects: cluster", |k, n| format!("{OBJECTS}?cluster={}", k.cluster(n))),
        ask!("objects: kind", |k, n| format!("{OBJECTS}?kind={}", pick(&k.objects, n).kind)),
        ask!("objects: not ready, 50", |_, _| format!("{OBJECTS}?ready=false&limit=50")),
        ask!("explain", |k, n| format!("/api/v1/explain?{}", k.object(n))),
        ask!("receivers", |_, _| "/api/v1/receivers".into()),
    ]
}

const DELIVERIES: &str = "/api/v1/deliveries";

fn deliveries() -> Vec<Question> {
    vec![
        ask!("deliveries: newest", |_, _| DELIVERIES.into()),
        ask!("deliveries: a page deep inside", |k, n| format!("{DELIVERIES}?cursor={}", k.id(n))),
        ask!("deliveries: until", |k, n| format!("{DELIVERIES}?until={}", k.time(n))),
        ask!("deliveries: waiting", |_, _| format!("{DELIVERIES}?state=pending")),
        ask!("deliveries: dead", |_, _| format!("{DELIVERIES}?state=dead")),
        ask!("deliveries: superseded", |_, _| format!("{DELIVERIES}?state=superseded")),
        ask!("deliveries: delivered", |_, _| format!("{DELIVERIES}?state=delivered")),
        ask!("deliveries: to a busy Provider", |_, n| format!(
            "{DELIVERIES}?provider=team-{:02}/chat",
            mix(n, 3) % 17 * 3
        )),
        ask!("deliveries: to a quiet Provider", |_, _| format!("{DELIVERIES}?provider=flux-system/archive")),
        ask!("deliveries: to a Provider, from a cursor on", |k, n| {
            format!("{DELIVERIES}?provider=flux-system/pager&cursor={}", k.id(n))
        }),
        ask!("deliveries: to a Provider, dead", |_, _| format!("{DELIVERIES}?provider=flux-system/pager&state=dead")),
        ask!("deliveries: of an Alert", |_, n| format!("{DELIVERIES}?alert=team-{:02}/all", mix(n, 3) % 17 * 3)),
        ask!("deliveries: of an Alert, quiet", |_, _| format!("{DELIVERIES}?alert=flux-system/samples")),
        ask!("deliveries: object", |k, n| format!("{DELIVERIES}?{}", k.object(n))),
        ask!("deliveries: namespace", |k, n| format!("{DELIVERIES}?object=*/{}/*", k.namespace(n))),
        ask!("deliveries: namespace, dead", |k, n| format!("{DELIVERIES}?object=*/{}/*&state=dead", k.namespace(n))),
        ask!("deliveries: cluster", |k, n| format!("{DELIVERIES}?cluster={}", k.cluster(n))),
        ask!("deliveries: cluster that is no more", |_, _| format!("{DELIVERIES}?cluster=retired")),
        ask!("delivery", |k, n| format!("{DELIVERIES}/{}", pick(&k.deliveries, n))),
    ]
}

fn streams() -> Vec<Question> {
    vec![
        Question {
            name: "stream: resumed, its first event",
            path: |k, n| format!("{EVENTS}/stream?after={}", k.id(n)),
            streams: true,
        },
        Question {
            name: "stream: of failures, resumed",
            path: |k, n| format!("{EVENTS}/stream?severity=error&after={}", k.id(n)),
            streams: true,
        },
        Question {
            name: "stream: of an object, resumed",
            path: |k, n| {
                // Far enough back for something to have been heard since.
                format!("{EVENTS}/stream?{}&after={}", k.object(n), k.id(n) - SPAN / 20)
            },
            streams: true,
        },
    ]
}
