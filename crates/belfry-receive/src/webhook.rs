//! What a webhook type is, and the one order in which all of them are run: authenticate, filter by event type, read the
//! body. Nothing is said about a body, and nothing is remembered, before the sender is known to be the right one.

use belfry_api::ReceiverSpec;
use belfry_core::{Time, config::receiver::has_filters, secret::SecretData};

use crate::{
    Accepted, Inbound, KeySource, Keys, Object, Refused, Verdict,
    credential::Credential,
    events::{EventHeader, Filtered},
    inbound::plain,
    json,
    read::{self, Payload},
    registry,
};

/// Bytes of a delivery's id; a longer one is none.
const DELIVERY_ID: usize = 256;

/// Evaluates the `variables` and `validations` of the provider with this index in `spec.oidcProviders` over a verified
/// token's claims: CEL is the caller's. The error is what the log says, such as `token validation failed: wrong repo`.
pub type ClaimsCheck<'a> = dyn Fn(usize, &Object) -> Result<(), String> + 'a;

/// A [`ClaimsCheck`] for where there are no claims: a token that gets this far authorizes nobody.
pub fn no_claims(_: usize, _: &Object) -> Result<(), String> {
    Err("token validation failed: nothing evaluates the validations".to_owned())
}

/// What verification rests on, besides the Receiver and the request.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The Secret that `spec.secretRef` names.
    pub secret: Option<&'a SecretData>,
    /// The keys that [`keys`](crate::keys) asked for.
    pub keys: Option<&'a Keys>,
    /// What a verified token's claims must fulfil.
    pub claims: &'a ClaimsCheck<'a>,
    /// The present.
    pub now: Time,
}

/// A request under verification.
pub(crate) struct Call<'a> {
    pub(crate) spec: &'a ReceiverSpec,
    pub(crate) inbound: Inbound<'a>,
    pub(crate) given: Given<'a>,
}

impl<'a> Call<'a> {
    /// A value of the Secret.
    pub(crate) fn credential(&self, key: &str) -> Result<Credential<'a>, Refused> {
        Credential::of(self.given.secret, key)
    }
}

/// A webhook type.
pub(crate) struct Webhook {
    /// Its name in `spec.type`.
    pub(crate) name: &'static str,
    /// What its Secret must have; none for types without a Secret.
    pub(crate) secret: &'static [&'static str],
    /// Which keys a request takes.
    pub(crate) keys: fn(&ReceiverSpec, &Inbound<'_>) -> Result<Option<KeySource>, Refused>,
    /// Whether the sender is the right one; the claims, if it says who it is by a token.
    pub(crate) authenticate: fn(&Call<'_>) -> Result<Option<Object>, Refused>,
    /// The header that `spec.events` is about.
    pub(crate) events: Option<EventHeader>,
    /// The headers that may hold the delivery's id, the best first.
    pub(crate) delivery: &'static [&'static str],
    /// Reads the body. The error is what is wrong with it.
    pub(crate) read: fn(&Inbound<'_>) -> Result<Payload, String>,
    /// Before the text of that error.
    pub(crate) unreadable: &'static str,
    /// The caller reads the body.
    pub(crate) handed_over: bool,
}

impl Webhook {
    /// A type without any credential but its path.
    pub(crate) const BASE: Self = Self {
        name: "",
        secret: &["token"],
        keys: |_, _| Ok(None),
        authenticate: |_| Ok(None),
        events: None,
        delivery: &[],
        read: read::unread,
        unreadable: "",
        handed_over: false,
    };
}

fn ready(spec: &ReceiverSpec) -> Result<&'static Webhook, Refused> {
    if spec.suspend {
        return Err(Refused::not_ready("the receiver is suspended"));
    }
    registry::webhook(&spec.type_)
        .ok_or_else(|| Refused::not_ready(format!("receiver type {:?} not supported", spec.type_)))
}

pub(crate) fn keys(spec: &ReceiverSpec, inbound: &Inbound<'_>) -> Result<Option<KeySource>, Refused> {
    (ready(spec)?.keys)(spec, inbound)
}

pub(crate) fn verify(spec: &ReceiverSpec, inbound: &Inbound<'_>, given: &Given<'_>) -> Result<Verdict, Refused> {
    let webhook = ready(spec)?;
    let call = Call { spec, inbound: *inbound, given: *given };
    for key in webhook.secret {
        call.credential(key)?;
    }
    let claims = (webhook.authenticate)(&call)?;
    if webhook.handed_over {
        return Ok(Verdict::CdEvents(spec.cdevents.unwrap_or_default()));
    }
    if let Some(events) = &webhook.events
        && let Filtered::Ignored(why) = events.filter(&spec.events, inbound)?
    {
        return Ok(Verdict::Ignored(why));
    }
    let payload =
        (webhook.read)(inbound).map_err(|error| Refused::payload(format!("{}{error}", webhook.unreadable)))?;
    let request = request(spec, inbound, payload.replaced)?;
    let header = |name: &&str| inbound.text(name).map(|text| text.into_owned());
    let delivery_id = webhook.delivery.iter().find_map(header).or(payload.delivery_id);
    let event_type = webhook.events.as_ref().and_then(|events| events.of(inbound)).or(payload.event_type);
    Ok(Verdict::Accepted(Accepted {
        delivery_id: delivery_id.filter(|id| id.len() <= DELIVERY_ID),
        event_type: event_type.map(|event| plain(&event)),
        subject: payload.subject,
        request,
        claims,
    }))
}

/// What filters see of the body. Without a filter nobody looks, and nothing is parsed.
fn request(spec: &ReceiverSpec, inbound: &Inbound<'_>, replaced: Option<Object>) -> Result<Object, Refused> {
    if !has_filters(spec) {
        return Ok(Object::new());
    }
    match replaced {
        Some(replaced) if json::is_json(inbound) => Ok(replaced),
        Some(_) => Ok(Object::new()),
        None => json::request(inbound).map_err(Refused::payload),
    }
}
