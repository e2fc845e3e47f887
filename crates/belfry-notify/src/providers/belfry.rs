//! `belfry`: the event as it was recorded, byte for byte, to another Belfry, which takes it in as if it had come there
//! itself. Its id makes that happen once, however often it is sent.

use belfry_core::notification::{Notification, Recorded};
use belfry_http::{HeaderMap, HeaderName, HeaderValue, Request, Url, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::JSON;
use crate::{
    Misconfigured, Reason,
    protocol::{Protocol, Unsent},
    settings::Resolved,
};

const ID: HeaderName = HeaderName::from_static("belfry-event-id");
const PASSED: HeaderName = HeaderName::from_static("belfry-passed");
const TIMESTAMP: HeaderName = HeaderName::from_static("belfry-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("belfry-signature");
/// Where the other one takes events.
const PATH: &str = "/events";

struct Belfry {
    url: Url,
    headers: HeaderMap,
    proof: Proof,
}

/// What shows whose the event is.
enum Proof {
    Bearer(HeaderValue),
    Key(Hmac<Sha256>),
}

pub(crate) fn open(resolved: &Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured> {
    let mut url = resolved.url()?;
    if url.path() == "/" {
        url.set_path(PATH);
    }
    let unusable = |_| Misconfigured::new(Reason::Token, "the key 'hmacKey' can't be used as a key for HMAC");
    let proof = match resolved.hmac_key() {
        Some(key) => Proof::Key(Hmac::new_from_slice(key).map_err(unusable)?),
        None => Proof::Bearer(resolved.bearer()?.ok_or_else(|| {
            let text = format!("type 'belfry' needs a key or a token: {}, or 'token'", resolved.place_for("hmacKey"));
            Misconfigured::new(Reason::Token, text)
        })?),
    };
    Ok(Box::new(Belfry { url, headers: resolved.extra_headers()?, proof }))
}

impl Protocol for Belfry {
    fn render(&self, notification: &Notification) -> Result<Vec<Request>, Unsent> {
        let recorded = &notification.recorded;
        let mut request = Request::post(self.url.clone(), JSON, recorded.body.clone());
        for (name, value) in &self.headers {
            request.headers.insert(name, value.clone());
        }
        let passed = recorded.passed.to_string();
        request.headers.insert(ID, plain(&recorded.id)?);
        request.headers.insert(PASSED, plain(&passed)?);
        match &self.proof {
            Proof::Bearer(token) => drop(request.headers.insert(header::AUTHORIZATION, token.clone())),
            Proof::Key(key) => {
                let seconds = recorded.at.0.div_euclid(1_000_000);
                request.headers.insert(TIMESTAMP, HeaderValue::from(seconds));
                request.headers.insert(SIGNATURE, plain(&signature(key, recorded, seconds, &passed))?);
            }
        }
        Ok(vec![request])
    }
}

/// `v2=` and the HMAC of everything that the other side goes by.
fn signature(key: &Hmac<Sha256>, recorded: &Recorded, seconds: i64, passed: &str) -> String {
    let head = format!("v2\n{}\n{seconds}\n{passed}\n", recorded.id);
    let sum = key.clone().chain_update(head).chain_update(&recorded.body).finalize().into_bytes();
    sum.iter().fold("v2=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

fn plain(text: &str) -> Result<HeaderValue, Unsent> {
    HeaderValue::from_str(text).map_err(|_| Unsent::Reject("its id or its way here can't be sent as a header".into()))
}
