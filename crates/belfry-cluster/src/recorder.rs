//! What becomes of an announcement: a new Kubernetes Event, a higher count of one that says the same, or nothing, when
//! too much is said about one object. As client-go's recorder has it, which is the peer's.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::Hash,
    time::Duration,
};

use belfry_api::{COMMIT_STATUS_VERSIONS, GROUP, RECEIVER_VERSIONS, STORAGE_VERSION};
use belfry_core::{ConfigKind, announcement::Announcement};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{bucket::Bucket, call};

/// What Kubernetes Events call their author: the peer's name, for people and tools look for it.
const COMPONENT: &str = "notification-controller";
/// A repeat within this time raises the count.
const SAME: Duration = Duration::from_secs(600);
/// Kubernetes Events about one object at once, and seconds for each one more.
const BURST: u32 = 25;
const REFILL: f64 = 300.0;
/// Objects, and different Kubernetes Events, that are remembered.
const REMEMBERED: usize = 4096;
/// Bytes of a message that are kept, which is what the newer Events API allows.
const MESSAGE: usize = 1024;

/// What to write.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Key,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The whole Event.
    pub(crate) event: Value,
    pub(crate) write: Write,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Write {
    /// It is new.
    Create,
    /// It exists: a merge patch. Should it be gone, it is created.
    Bump(Value),
}

/// What is to be told of an object.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) about: About,
    /// Who tells it.
    pub(crate) component: &'static str,
    /// `Warning` rather than `Normal`.
    pub(crate) warning: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The object that is told of.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) api_version: String,
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty where it isn't known.
    pub(crate) uid: String,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl From<Announcement> for Note {
    fn from(said: Announcement) -> Self {
        let version = match said.object.kind {
            ConfigKind::Receiver => RECEIVER_VERSIONS[0],
            ConfigKind::CommitStatus => COMMIT_STATUS_VERSIONS[0],
            _ => STORAGE_VERSION,
        };
        let about = About {
            api_version: format!("{GROUP}/{version}"),
            kind: said.object.kind.as_str(),
            namespace: said.object.namespace.to_string(),
            name: said.object.name.to_string(),
            uid: said.uid.to_string(),
        };
        let Announcement { warning, reason, message, annotations, .. } = said;
        Self { about, component: COMPONENT, warning, reason, message, annotations }
    }
}

/// One object of one UID.
type Object = (String, String);
/// What makes two announcements the same.
type Key = (Object, bool, &'static str, String);

#[derive(Default)]
pub(crate) struct Recorder {
    said: HashMap<Key, Said>,
    buckets: HashMap<Object, (Instant, Bucket)>,
    last_nanosecond: i128,
}

struct Said {
    name: String,
    count: u64,
    first: Timestamp,
    last: Instant,
}

impl Recorder {
    /// Decides what to write; `None` for one too many about its object, or for an object that can't be named.
    /// `at` is when it was announced, `now` the clock of the bounds.
    pub(crate) fn take_in(&mut self, said: &Note, at: Timestamp, now: Instant) -> Option<Entry> {
        let (namespace, object) = (said.about.namespace.clone(), said.about.name.clone());
        if !call::is_name(&namespace) || !call::is_name(&object) {
            return None;
        }
        let about = (said.about.to_string(), said.about.uid.clone());
        if !self.within_bounds(&about, now) {
            return None;
        }
        let message = shorten(&said.message);
        let key: Key = (about, said.warning, said.reason, message.to_owned());
        make_room(&mut self.said, &key, |said| said.last);
        let fresh_name = self.name(&object, at);
        let entry = self.said.entry(key.clone()).or_insert_with(|| Said {
            name: String::new(),
            count: 0,
            first: at,
            last: now,
        });
        if entry.count == 0 || now.saturating_duration_since(entry.last) > SAME {
            *entry = Said { name: fresh_name, count: 0, first: at, last: now };
        }
        entry.count += 1;
        entry.last = now;

        let (first, last) = (seconds(entry.first), seconds(at));
        let mut reference = json!({
            "apiVersion": said.about.api_version,
            "kind": said.about.kind,
            "namespace": namespace,
            "name": object,
        });
        if !said.about.uid.is_empty() {
            reference["uid"] = json!(said.about.uid);
        }
        let mut metadata = json!({ "name": entry.name, "namespace": namespace });
        let mut patch = json!({ "count": entry.count, "lastTimestamp": last });
        if !said.annotations.is_empty() {
            metadata["annotations"] = json!(said.annotations);
            patch["metadata"] = json!({ "annotations": said.annotations });
        }
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": reference,
            "type": if said.warning { "Warning" } else { "Normal" },
            "reason": said.reason,
            "message": message,
            "source": { "component": said.component },
            "reportingComponent": said.component,
            "reportingInstance": "",
            "firstTimestamp": first,
            "lastTimestamp": last,
            "count": entry.count,
        });
        let write = if entry.count == 1 { Write::Create } else { Write::Bump(patch) };
        Some(Entry { key, namespace, name: entry.name.clone(), event, write })
    }

    /// It was not written, so the next one like it is not its repeat.
    pub(crate) fn forget(&mut self, entry: &Entry) {
        if entry.write == Write::Create {
            self.said.remove(&entry.key);
        }
    }

    fn within_bounds(&mut self, about: &Object, now: Instant) -> bool {
        make_room(&mut self.buckets, about, |(used, _)| *used);
        let fresh = || (now, Bucket::new(1.0 / REFILL, BURST, now));
        let (used, bucket) = self.buckets.entry(about.clone()).or_insert_with(fresh);
        *used = now;
        bucket.take(now).is_ok()
    }

    /// A name of its own, as client-go makes it: the object's, and the time in nanoseconds.
    fn name(&mut self, object: &str, at: Timestamp) -> String {
        self.last_nanosecond = at.as_nanosecond().max(self.last_nanosecond + 1);
        let nanosecond = self.last_nanosecond;
        // 253 bytes at most; names are ASCII, and what ends them must not be a dot.
        let object = object.get(..object.len().min(230)).unwrap_or_default().trim_end_matches(['.', '-']);
        format!("{object}.{nanosecond:x}")
    }
}

/// Leaves room for one more, unless it is there already.
fn make_room<K: Hash + Eq + Clone, V>(map: &mut HashMap<K, V>, key: &K, used: impl Fn(&V) -> Instant) {
    if map.len() >= REMEMBERED && !map.contains_key(key) {
        let oldest = map.iter().min_by_key(|(_, value)| used(value)).map(|(key, _)| key.clone());
        oldest.and_then(|oldest| map.remove(&oldest));
    }
}

/// Whole seconds, as Kubernetes has them.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shorten(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use belfry_core::ConfigKey;

    use super::*;

    fn announcement(message: &str) -> Announcement {
        Announcement {
            object: ConfigKey::alert("apps", "on-call"),
            uid: "0c9c2e41".into(),
            warning: true,
            reason: "NotificationDispatchFailed",
            message: message.to_owned(),
            annotations: [("revision".to_owned(), "a, b".to_owned())].into(),
        }
    }

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    #[test]
    fn a_new_one_has_the_shape_of_the_peers() {
        let entry = Recorder::default().take_in(&announcement("no").into(), AT, Instant::now()).unwrap();
        assert_eq!(entry.write, Write::Create);
        let expected = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": "on-call.1", "namespace": "apps", "annotations": { "revision": "a, b" } },
            "involvedObject": {
                "apiVersion": "notification.toolkit.fluxcd.io/v1beta3",
                "kind": "Alert", "namespace": "apps", "name": "on-call", "uid": "0c9c2e41",
            },
            "type": "Warning",
            "reason": "NotificationDispatchFailed",
            "message": "no",
            "source": { "component": "notification-controller" },
            "reportingComponent": "notification-controller",
            "reportingInstance": "",
            "firstTimestamp": "1970-01-01T00:00:00Z",
            "lastTimestamp": "1970-01-01T00:00:00Z",
            "count": 1,
        });
        assert_eq!(entry.event, expected);
    }

    #[test]
    fn it_is_about_an_object_in_the_version_of_its_kind() {
        for (object, reference) in [
            (ConfigKey::provider("apps", "x"), "v1beta3 Provider"),
            (ConfigKey::commit_status("apps", "x"), "v1beta1 CommitStatus"),
            (ConfigKey::receiver("apps", "x"), "v1 Receiver"),
        ] {
            let said = Announcement { object, ..announcement("no") };
            let entry = Recorder::default().take_in(&said.into(), AT, Instant::now()).unwrap();
            let about = &entry.event["involvedObject"];
            let (version, kind) = reference.split_once(' ').unwrap();
            assert_eq!(about["apiVersion"], format!("notification.toolkit.fluxcd.io/{version}"));
            assert_eq!(about["kind"], kind);
        }
    }

    #[test]
    fn a_repeat_raises_the_count_and_a_late_one_begins_anew() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        let first = recorder.take_in(&announcement("no").into(), AT, start).unwrap();
        let at = AT + jiff::SignedDuration::from_secs(60);
        let again = recorder.take_in(&announcement("no").into(), at, start + Duration::from_secs(60)).unwrap();
        assert_eq!(again.name, first.name);
        let patch = json!({
            "count": 2,
            "lastTimestamp": "1970-01-01T00:01:00Z",
            "metadata": { "annotations": { "revision": "a, b" } },
        });
        assert_eq!(again.write, Write::Bump(patch));
        assert_eq!(
            (&again.event["count"], &again.event["firstTimestamp"]),
            (&json!(2), &json!("1970-01-01T00:00:00Z"))
        );

        let other = recorder.take_in(&announcement("never").into(), at, start + Duration::from_secs(60)).unwrap();
        assert_eq!(other.write, Write::Create);
        assert_ne!(other.name, first.name);

        let late = recorder.take_in(&announcement("no").into(), at, start + Duration::from_secs(661)).unwrap();
        assert_eq!(late.write, Write::Create);
        assert_ne!(late.name, first.name);
    }

    #[test]
    fn one_that_was_not_written_is_not_repeated() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        let lost = recorder.take_in(&announcement("no").into(), AT, start).unwrap();
        recorder.forget(&lost);
        assert_eq!(recorder.take_in(&announcement("no").into(), AT, start).unwrap().write, Write::Create);
    }

    #[test]
    fn an_object_that_is_talked_about_too_much_gets_one_in_five_minutes() {
        let (mut recorder, start) = (Recorder::default(), Instant::now());
        let mut take = |n: u32, now| recorder.take_in(&announcement(&n.to_string()).into(), AT, now).is_some();
        assert_eq!((0..40).filter(|&n| take(n, start)).count(), 25);
        assert!(!take(41, start + Duration::from_secs(299)));
        assert!(take(42, start + Duration::from_secs(301)));
        assert!(!take(43, start + Duration::from_secs(302)));
        let other = Announcement { object: ConfigKey::alert("apps", "other"), ..announcement("no") };
        assert!(recorder.take_in(&other.into(), AT, start).is_some());
    }

    #[test]
    fn names_and_messages_fit_whatever_comes() {
        let mut recorder = Recorder::default();
        let long =
            Announcement { object: ConfigKey::alert("apps", &"a".repeat(253)), ..announcement(&"é".repeat(2000)) };
        let entry = recorder.take_in(&long.into(), Timestamp::MAX, Instant::now()).unwrap();
        assert!(entry.name.len() <= 253 && call::is_name(&entry.name));
        assert_eq!(entry.event["message"].as_str().unwrap().len(), 1024);
        let odd = Announcement { object: ConfigKey::alert("../x", "a"), ..announcement("no") };
        assert!(recorder.take_in(&odd.into(), AT, Instant::now()).is_none());
    }
}
