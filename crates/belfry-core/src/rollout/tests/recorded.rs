//! The events that are shipped as an example, as Flux really sent them.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde_json::Value;

use super::super::{Input, Report, Rollout, State, step};
use crate::{
    Seq,
    event::{controller_value, object, read, updates_commit_status},
    plan::Origin,
    revision,
};

/// Two objects' rollouts would be the same for the length of a hash; the first digits tell them apart.
fn short(revision: &str) -> String {
    let at = revision.rfind(':').map_or(0, |colon| colon + 1);
    revision.chars().take(at + if at > 0 { 7 } else { revision.len() }).collect()
}

#[test]
fn recorded_events_give_the_rollouts_that_a_person_would_expect() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/events/flux.jsonl");
    let mut states: BTreeMap<_, State> = BTreeMap::new();
    let mut stories: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut rows: BTreeMap<_, BTreeMap<Seq, Rollout>> = BTreeMap::new();
    for line in fs::read_to_string(path).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let event = read(row["event"].to_string().as_bytes()).unwrap();
        let received: jiff::Timestamp = row["receivedAt"].as_str().unwrap().parse().unwrap();
        let value = |key| controller_value(&event, Origin::Forwarded, key);
        let key = object(&event, "");
        let report = Report {
            seq: Seq(received.as_microsecond()),
            object: &key,
            uid: &event.involved_object.uid,
            severity: &event.severity,
            reason: &event.reason,
            message: &event.message,
            timestamp: event.timestamp.map(|at| at.as_second()),
            revision: value("revision"),
            origin_revision: value("originRevision"),
            commit: revision::commit(&event.metadata),
            updates_commit_status: updates_commit_status(&event, Origin::Forwarded),
            token: value("token"),
            oci_digest: value("oci-digest"),
            tests_decide: None,
            deleting: false,
            status: None,
        };
        let name = key.to_string();
        let state = states.entry(name.clone()).or_default();
        let step = step(state, &Input::Reported(report));
        let told = step.transitions.iter();
        let told = told.map(|t| format!("{} {:?}", short(&step.changed(t.rollout).unwrap().revision), t.what));
        stories.entry(name.clone()).or_default().extend(told);
        *state = step.state;
        rows.entry(name).or_default().extend(step.changed.into_iter().map(|rollout| (rollout.id, rollout)));
    }
    let mut out = String::new();
    for (name, state) in &states {
        let _ = writeln!(out, "{name}");
        for rollout in rows.get(name).into_iter().flat_map(BTreeMap::values) {
            let next = rollout.superseded_by.as_ref().map(|next| format!(" by {}", short(&next.revision)));
            let origin = rollout.origin_revision.as_ref().map(|origin| format!(" from {}", short(origin)));
            let _ = writeln!(
                out,
                "  {}{}: {}{}, {} attempt(s), {}: {}",
                short(&rollout.revision),
                origin.unwrap_or_default(),
                rollout.state.as_str(),
                next.unwrap_or_default(),
                rollout.attempts,
                rollout.reason,
                rollout.message.lines().next().unwrap_or_default().chars().take(60).collect::<String>(),
            );
        }
        if let Some(live) = state.live() {
            let _ = writeln!(out, "  live: {}", short(&live.revision));
        }
        if state.is_gone() {
            let _ = writeln!(out, "  gone");
        }
        for told in &stories[name] {
            let _ = writeln!(out, "    - {told}");
        }
    }
    insta::assert_snapshot!(out);
}
