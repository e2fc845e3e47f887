//! What a run gives to the tasks after it.

use std::time::Duration;

use belfry_core::{
    ObjectKey, Time,
    verdict::{Answer, Standing},
};
use serde_json::{Value, json};

use super::status::{MESSAGE, Outcome, shortened};

/// Bytes of the result `objects`, and of what the status says of them: both live in etcd, one in the PipelineRun too.
const OBJECTS: usize = 4096;
/// Bytes of one object's message there.
const OBJECT_MESSAGE: usize = 128;
/// Bytes of any other text that Flux's objects supply.
const TEXT: usize = 512;

/// What is known at the end of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found<'a> {
    /// The last answer that the run may see.
    pub(super) answer: Option<&'a Answer>,
    /// The revision that was asked for.
    pub(super) revision: &'a str,
    /// When it was asked.
    pub(super) asked: Option<Time>,
}

/// Every result that is documented, whether or not there is a value for it.
pub(super) fn all(found: &Found<'_>, outcome: &Outcome, now: Time) -> Vec<Value> {
    let answer = found.answer;
    let standing = answer.and_then(deciding);
    let told = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    let named = answer.and_then(|answer| answer.object.as_ref());
    let finished = answer.and_then(|answer| answer.finished);
    let took = match answer.and_then(|answer| Some((answer.started?, answer.finished?))) {
        Some((started, finished)) => Some(finished.since(started)),
        None => found.asked.map(|asked| now.since(asked)),
    };
    let revision = answer.map_or(found.revision, |answer| &answer.revision);
    let results = [
        ("revision", revision.to_owned()),
        ("origin-revision", answer.and_then(|answer| answer.origin_revision.clone()).unwrap_or_default()),
        ("duration", took.map(go_duration).unwrap_or_default()),
        ("reason", told(standing.map(|one| &one.reason)).unwrap_or_else(|| outcome.reason.to_owned())),
        ("message", told(standing.map(|one| &one.message)).unwrap_or_else(|| outcome.message.clone())),
        ("object", named.map(name).unwrap_or_default()),
        ("event-id", answer.and_then(|answer| answer.event).map(|seq| seq.0.to_string()).unwrap_or_default()),
        ("timestamp", finished.unwrap_or(now).to_string()),
        ("objects", answer.map_or_else(|| json!([]), objects).to_string()),
    ];
    let bytes = |name: &str| match name {
        "objects" => usize::MAX,
        "message" => MESSAGE,
        _ => TEXT,
    };
    results.into_iter().map(|(name, value)| json!({ "name": name, "value": shortened(&value, bytes(name)) })).collect()
}

/// Where the object stands that decided.
fn deciding(answer: &Answer) -> Option<&Standing> {
    let object = answer.object.as_ref()?;
    answer.objects.iter().find(|standing| standing.object == *object)
}

/// Where every object stands, as far as there is room; the last item says how many are left out.
pub(super) fn objects(answer: &Answer) -> Value {
    let mut list = Vec::new();
    let mut left = OBJECTS;
    for (n, standing) in answer.objects.iter().enumerate() {
        let item = item(standing);
        // Room for what says that some are missing.
        let bytes = item.to_string().len() + 1;
        if bytes + 20 > left {
            list.push(json!({ "omitted": answer.objects.len() - n }));
            break;
        }
        left -= bytes;
        list.push(item);
    }
    Value::Array(list)
}

fn item(standing: &Standing) -> Value {
    let mut item = json!({ "object": name(&standing.object), "state": standing.state.as_str() });
    let texts = [
        ("cluster", Some(&standing.cluster), TEXT),
        ("revision", standing.revision.as_ref(), TEXT),
        ("reason", Some(&standing.reason), OBJECT_MESSAGE),
        ("message", Some(&standing.message), OBJECT_MESSAGE),
        ("live", standing.live.as_ref(), TEXT),
    ];
    for (field, text, bytes) in texts {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            item[field] = json!(shortened(text, bytes));
        }
    }
    item
}

/// The one object that has no name gets none.
fn name(object: &ObjectKey) -> String {
    if object.kind.is_empty() { String::new() } else { object.to_string() }
}

/// A duration as Go prints it, in whole milliseconds.
pub(super) fn go_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!(".{millis:03}");
    let seconds = format!("{seconds}{}s", fraction.trim_end_matches('0').trim_end_matches('.'));
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (millis, text) in [
            (0, "0s"),
            (850, "850ms"),
            (1_000, "1s"),
            (1_250, "1.25s"),
            (60_000, "1m0s"),
            (90_005, "1m30.005s"),
            (3_600_000, "1h0m0s"),
            (90_061_000, "25h1m1s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
