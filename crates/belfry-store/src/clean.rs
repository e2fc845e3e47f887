//! Text as every database takes it: columns don't hold NUL in all of them.

use belfry_core::{
    ObjectKey,
    plan::Candidate,
    rollout::{Found, Sighting},
};

use crate::types::{RowState, Settlement};

pub(crate) fn clean(candidate: &mut Candidate) {
    clean_object(&mut candidate.object);
    for text in [&mut candidate.severity, &mut candidate.reason].into_iter().chain(&mut candidate.revision) {
        clean_text(text);
    }
    let Some(rollout) = &mut candidate.rollout else { return };
    let named = [&mut rollout.origin_revision, &mut rollout.token, &mut rollout.oci_digest];
    for text in [&mut rollout.uid, &mut rollout.message].into_iter().chain(named.into_iter().flatten()) {
        clean_text(text);
    }
}

pub(crate) fn clean_sighting(seen: &mut Sighting) {
    clean_object(&mut seen.object);
    clean_text(&mut seen.uid);
    let named = [&mut seen.revision, &mut seen.origin_revision, &mut seen.commit];
    named.into_iter().flatten().for_each(clean_text);
    if let Found::Failed { reason, message } = &mut seen.found {
        clean_text(reason);
        clean_text(message);
        // As much as the fold takes in of it.
        cut(message, belfry_core::rollout::MESSAGE);
    }
}

pub(crate) fn clean_object(object: &mut ObjectKey) {
    let texts = [&mut object.cluster, &mut object.group, &mut object.kind, &mut object.namespace, &mut object.name];
    texts.into_iter().for_each(clean_text);
}

pub(crate) fn clean_text(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

/// Keeps the beginning, not more than `most` bytes.
pub(crate) fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

pub(crate) fn clean_settlement(mut settlement: Settlement) -> Settlement {
    for result in &mut settlement.results {
        if let Some(attempt) = &mut result.attempt {
            clean_text(&mut attempt.error);
        }
        if let RowState::Skipped(why) | RowState::Superseded(why) | RowState::Dead(why) = &mut result.state {
            clean_text(why);
        }
    }
    settlement
}
