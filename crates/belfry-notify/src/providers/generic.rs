//! `generic` and `generic-hmac`: the event itself, to any HTTP endpoint.

use belfry_core::{go_json, notification::Notification};
use belfry_http::{HeaderMap, HeaderName, HeaderValue, Request, Url};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::post_bytes;
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
};

const COMPONENT: HeaderName = HeaderName::from_static("gotk-component");
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

struct Generic {
    url: Url,
    headers: HeaderMap,
    key: Option<Hmac<Sha256>>,
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    Ok(Box::new(Generic { url: resolved.url()?, headers: resolved.extra_headers()?, key: None }))
}

/// With a signature of the body; the key is the token's bytes as stored, line breaks included.
pub(crate) fn open_signed(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let key = Hmac::new_from_slice(resolved.signing_key()?)
        .map_err(|_| Misconfigured::new(Reason::Token, "the token can't be used as a key for HMAC"))?;
    Ok(Box::new(Generic { url: resolved.url()?, headers: resolved.extra_headers()?, key: Some(key) }))
}

impl Protocol for Generic {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let event = &notification.event;
        let mut request = post_bytes(&self.url, go_json::event(event));
        let component = HeaderValue::from_str(&event.reporting_controller)
            .map_err(|_| Unsent::Reject("reportingController can't be sent as a header".into()))?;
        request.headers.insert(COMPONENT, component);
        for (name, value) in &self.headers {
            request.headers.insert(name, value.clone());
        }
        if let Some(key) = &self.key {
            let sum = key.clone().chain_update(&request.body).finalize().into_bytes();
            let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
            let signature = HeaderValue::from_str(&format!("sha256={hex}"));
            request.headers.insert(SIGNATURE, signature.map_err(|_| Unsent::Reject("no signature".into()))?);
        }
        Ok(vec![request])
    }
}
