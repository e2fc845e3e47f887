//! The webhook types, one file each.

pub(crate) mod acr;
pub(crate) mod bitbucket;
pub(crate) mod cdevents;
pub(crate) mod dockerhub;
pub(crate) mod gcr;
pub(crate) mod generic;
pub(crate) mod generic_hmac;
pub(crate) mod generic_oidc;
pub(crate) mod github;
pub(crate) mod gitlab;
pub(crate) mod harbor;
pub(crate) mod nexus;
pub(crate) mod quay;

use crate::{Inbound, json, read::Payload};

/// Reads a body for the id of the CloudEvent that headers may make of it.
pub(crate) fn cloud_event(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let attribute = |name: &str| json::named(inbound.text(name).unwrap_or_default().into_owned());
    let delivery_id = attribute("ce-source").zip(attribute("ce-id")).map(|(source, id)| cdevents::id(&source, &id));
    Ok(Payload { delivery_id, event_type: attribute("ce-type"), ..Payload::default() })
}
