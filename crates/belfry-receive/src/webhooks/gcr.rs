//! `gcr`: Google's registries, by way of a Pub/Sub push subscription. The push carries an ID token that Google signed
//! for the subscription's service account, and the event in base64.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::{
    Inbound, KeySource, Object, Reason, Refused,
    inbound::{plain, quoted},
    json,
    oidc::{Algorithm, GOOGLE, GOOGLE_IAP, Signature, Token, bearer},
    read::{Payload, subject},
    webhook::{Call, Webhook},
};

pub(crate) const WEBHOOK: Webhook = Webhook {
    name: "gcr",
    secret: &["token", "email", "audience"],
    keys: |_, inbound| presented(inbound).map(|(_, source)| Some(source)).map_err(unauthenticated),
    authenticate: |call| authenticate(call).map_err(unauthenticated),
    read,
    unreadable: "cannot decode GCR webhook ",
    ..Webhook::BASE
};

const ISSUERS: [&str; 2] = ["accounts.google.com", "https://accounts.google.com"];

fn unauthenticated(refused: Refused) -> Refused {
    match refused.reason {
        Reason::NotReady => refused,
        _ => refused.within("cannot authenticate GCR request: "),
    }
}

/// The token, and whose keys it takes: that depends on the algorithm.
fn presented<'a>(inbound: &Inbound<'a>) -> Result<(Token<'a>, KeySource), Refused> {
    let token = bearer(inbound).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| Refused::credential("the Authorization header is missing or malformed"))?;
    let token = Token::parse(token).map_err(|error| Refused::credential(format!("invalid ID token: {error}")))?;
    let source = match Algorithm::parse(token.algorithm()) {
        Some(Algorithm::Rs256) => GOOGLE,
        Some(Algorithm::Es256) => GOOGLE_IAP,
        _ => {
            let found = quoted(token.algorithm());
            let why = format!("invalid ID token: expected JWT signed with RS256 or ES256 but found {found}");
            return Err(Refused::credential(why));
        }
    };
    Ok((token, source))
}

fn authenticate(call: &Call<'_>) -> Result<Option<Object>, Refused> {
    let (email, audience) = (call.credential("email")?, call.credential("audience")?);
    let (token, source) = presented(&call.inbound)?;
    let invalid = |why: String| Refused::credential(format!("invalid ID token: {why}"));
    match token.text("aud") {
        Some(found) if audience.is(found.as_bytes()) => {}
        found => {
            let found = found.map_or_else(|| "<unknown>".to_owned(), plain);
            return Err(invalid(format!("audience is '{found}', which is not the one in the secret")));
        }
    }
    if token.seconds("exp").is_none_or(|expiry| expiry < call.given.now.0.div_euclid(1_000_000)) {
        return Err(invalid("token expired".to_owned()));
    }
    let keys = call.given.keys.filter(|keys| keys.source == source);
    let keys = keys.ok_or_else(|| Refused::new(Reason::KeysMissing, "Google's keys are not at hand"))?;
    match token.signature(keys) {
        Signature::Good => {}
        Signature::Bad(why) => return Err(invalid(format!("failed to verify signature: {why}"))),
        Signature::UnknownKey => {
            let why = "invalid ID token: could not find matching cert keyId for the token provided";
            return Err(Refused::new(Reason::UnknownKey, why));
        }
    }
    let issuer = token.text("iss").unwrap_or_default();
    if !ISSUERS.contains(&issuer) {
        let why = format!("token issuer is '{}', want '{}' or '{}'", plain(issuer), ISSUERS[0], ISSUERS[1]);
        return Err(Refused::credential(why));
    }
    let presented = token.text("email").unwrap_or_default();
    if !email.is(presented.as_bytes()) {
        let why = format!("token email '{}' is not the one in the secret", plain(presented));
        return Err(Refused::credential(why));
    }
    if token.claims.get("email_verified").and_then(serde_json::Value::as_bool) != Some(true) {
        return Err(Refused::credential("token email is not verified"));
    }
    Ok(None)
}

/// The event inside the message; for filters it stands for the whole body.
fn read(inbound: &Inbound<'_>) -> Result<Payload, String> {
    let outer = |error: String| format!("payload: {error}");
    let body = json::first_object(inbound.body).map_err(outer)?;
    let message = json::member(&body, "message").map_err(outer)?;
    let id = json::text(&message, "messageId").map_err(outer)?;
    let data = json::text(&message, "data").map_err(outer)?.replace(['\r', '\n'], "");
    let inner = |error: String| format!("body: {error}");
    let data = BASE64_STANDARD.decode(data).map_err(|_| inner("'data' is not base64".to_owned()))?;
    let event = json::whole_object(&data).map_err(inner)?;
    let field = |name: &str| json::text(&event, name).map_err(inner);
    let (action, digest, tag) = (field("action")?, field("digest")?, field("tag")?);
    let mut payload = Payload {
        delivery_id: json::named(id),
        event_type: json::named(action.clone()),
        subject: subject(&digest, &tag),
        replaced: None,
    };
    let members = [("action", action), ("digest", digest), ("tag", tag)];
    payload.replaced = Some(members.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect());
    Ok(payload)
}
