//! Shared by the tests of this crate: a genuine request of every type, to be bent out of shape.

mod answers;
mod config;
mod harness;
mod oidc;
mod payloads;
mod properties;
mod tidy;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use belfry_api::{LocalObjectReference, OidcProvider, OidcValidation, RECEIVER_TYPES, ReceiverResource, ReceiverSpec};
use belfry_core::{Time, secret::SecretData};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

use crate::{
    Accepted, Algorithm, Given, Inbound, KeySource, Keys, Object, Refused, Verdict,
    oidc::{GOOGLE, GOOGLE_IAP},
    verify,
};

pub(crate) const TOKEN: &str = "s3cr3t-t0ken";
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const EMAIL: &str = "pusher@project.iam.gserviceaccount.com";
pub(crate) const AUDIENCE: &str = "https://hooks.example/gcr";
/// 2026-01-01.
pub(crate) const NOW: i64 = 1_767_225_600;

pub(crate) fn secret(pairs: &[(&str, &str)]) -> SecretData {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
}

/// The HMAC of a body, in hex.
pub(crate) fn tag(algorithm: hmac::Algorithm, key: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(algorithm, key.as_bytes()), body);
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An issuer with a key of its own.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    id: &'static str,
}

impl Issuer {
    pub(crate) fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap(), id }
    }

    /// Its set of keys.
    pub(crate) fn jwks(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let coordinate = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = (coordinate(&point[1..33]), coordinate(&point[33..]));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": x, "y": y }] })
    }

    pub(crate) fn keys(&self, source: &KeySource) -> Keys {
        Keys::parse(source, &[Algorithm::Rs256, Algorithm::Es256], self.jwks().to_string().as_bytes()).unwrap()
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": "ES256", "kid": self.id, "typ": "JWT" }), claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Claims that the Receiver of [`Case::of`] takes.
pub(crate) fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "flux", "sub": "repo:acme/app", "exp": NOW + 60, "repository": "acme/app" })
}

/// Claims that Google's tokens have.
pub(crate) fn google_claims() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE, "email": EMAIL, "email_verified": true, "exp": NOW + 60,
    })
}

/// A Receiver and a request to it.
pub(crate) struct Case {
    pub(crate) spec: ReceiverSpec,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) secret: Option<SecretData>,
    pub(crate) keys: Option<Keys>,
    pub(crate) claims: Result<(), String>,
}

impl Case {
    /// A genuine request to a Receiver of this type, without filters.
    pub(crate) fn of(type_: &str) -> Self {
        let spec = ReceiverSpec {
            type_: type_.to_owned(),
            interval: "10m".to_owned(),
            resources: vec![ReceiverResource {
                kind: "GitRepository".into(),
                name: "webapp".into(),
                ..ReceiverResource::default()
            }],
            secret_ref: Some(LocalObjectReference { name: "hook".into() }),
            ..ReceiverSpec::default()
        };
        let secret = Some(secret(&[("token", TOKEN), ("email", EMAIL), ("audience", AUDIENCE)]));
        let mut case = Self { spec, headers: HeaderMap::new(), body: Vec::new(), secret, keys: None, claims: Ok(()) };
        case.set("content-type", "application/json");
        match type_ {
            "generic" => case.body(r#"{"action":"push"}"#),
            "generic-hmac" => case.body("null"),
            "generic-oidc" => case.oidc(),
            "github" => {
                case.set("x-github-event", "push").set("x-github-delivery", "72d3162e").body(r#"{"action":"push"}"#)
            }
            "gitlab" => case.set("x-gitlab-event", "Push Hook").body(r#"{"action":"push"}"#),
            "bitbucket" => case.set("x-event-key", "repo:refs_changed").body(r#"{"action":"push"}"#),
            "harbor" => case.body(r#"{"events":[{"full_name":"prj/repo1"}]}"#),
            "dockerhub" => case.body(r#"{"push_data":{"tag":"v1.0"},"repository":{"repo_url":"org/repo"}}"#),
            "quay" => case.body(r#"{"docker_url":"docker.io","updated_tags":["v0.0.1"]}"#),
            "gcr" => case.gcr(&Issuer::new("iap")),
            "nexus" => case.body(r#"{"action":"CREATED","repositoryName":"npm"}"#),
            "acr" => case.body(r#"{"action":"push","target":{"repository":"hello-world","tag":"1.0"}}"#),
            "cdevents" => case.set("ce-type", "cd.change.merged.v1").body(r#"{"context":{}}"#),
            other => panic!("no genuine request for {other}"),
        };
        case.sign(TOKEN);
        case
    }

    /// A genuine request of every type.
    pub(crate) fn all() -> impl Iterator<Item = (&'static str, Self)> {
        RECEIVER_TYPES.iter().map(|type_| (*type_, Self::of(type_)))
    }

    fn oidc(&mut self) -> &mut Self {
        let issuer = Issuer::new("key-1");
        self.spec.secret_ref = None;
        self.secret = None;
        self.spec.oidc_providers = vec![OidcProvider {
            issuer_url: ISSUER.into(),
            audience: Some("flux".into()),
            variables: Vec::new(),
            validations: vec![OidcValidation { expression: "true".into(), message: "never".into() }],
        }];
        self.keys = Some(issuer.keys(&KeySource::Issuer(ISSUER.into())));
        self.bearer(&issuer.token(&claims())).body("{}")
    }

    fn gcr(&mut self, issuer: &Issuer) -> &mut Self {
        self.keys = Some(issuer.keys(&GOOGLE_IAP));
        self.bearer(&issuer.token(&google_claims()));
        self.pushed(r#"{"action":"INSERT","digest":"eu.gcr.io/p/app@sha256:6ec1","tag":"eu.gcr.io/p/app1:v1.2.3"}"#)
    }

    /// A Pub/Sub push of this event.
    pub(crate) fn pushed(&mut self, event: &str) -> &mut Self {
        let data = base64::prelude::BASE64_STANDARD.encode(event);
        let message = json!({ "data": data, "messageId": "136969346945", "publishTime": "2026-01-01T00:00:00Z" });
        self.body(&json!({ "message": message, "subscription": "projects/p/subscriptions/s" }).to_string())
    }

    pub(crate) fn set(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn bearer(&mut self, token: &str) -> &mut Self {
        self.set("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn body(&mut self, body: &str) -> &mut Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    /// The header that holds the type's credential.
    pub(crate) fn credential(&self) -> Option<&'static str> {
        match self.spec.type_.as_str() {
            "generic-hmac" => Some("x-signature"),
            "github" => Some("x-hub-signature-256"),
            "bitbucket" => Some("x-hub-signature"),
            "gitlab" => Some("x-gitlab-token"),
            "nexus" => Some("x-nexus-webhook-signature"),
            "generic-oidc" | "gcr" | "harbor" => Some("authorization"),
            _ => None,
        }
    }

    /// Puts in the credential that this token gives, for the body as it is.
    pub(crate) fn sign(&mut self, token: &str) -> &mut Self {
        let Some(header) = self.credential() else { return self };
        let credential = match self.spec.type_.as_str() {
            "generic-oidc" | "gcr" => return self,
            "gitlab" | "harbor" => token.to_owned(),
            "nexus" => tag(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token, &self.body),
            _ => format!("sha256={}", tag(hmac::HMAC_SHA256, token, &self.body)),
        };
        self.set(header, &credential)
    }

    pub(crate) fn filtered(&mut self) -> &mut Self {
        self.spec.resource_filter = Some("true".into());
        self
    }

    pub(crate) fn inbound(&self) -> Inbound<'_> {
        Inbound { headers: &self.headers, body: &self.body }
    }

    pub(crate) fn verify(&self) -> Verdict {
        let claims = |_: usize, _: &Object| self.claims.clone();
        let given = Given {
            secret: self.secret.as_ref(),
            keys: self.keys.as_ref(),
            claims: &claims,
            now: Time(NOW * 1_000_000),
        };
        verify(&self.spec, &self.inbound(), &given)
    }

    #[track_caller]
    pub(crate) fn accepted(&self) -> Accepted {
        match self.verify() {
            Verdict::Accepted(accepted) => accepted,
            other => panic!("{}: {other:?}", self.spec.type_),
        }
    }

    #[track_caller]
    pub(crate) fn ignored(&self) -> String {
        match self.verify() {
            Verdict::Ignored(why) => why,
            other => panic!("{}: {other:?}", self.spec.type_),
        }
    }

    #[track_caller]
    pub(crate) fn refused(&self) -> Refused {
        match self.verify() {
            Verdict::Refused(refused) => refused,
            other => panic!("{}: {other:?}", self.spec.type_),
        }
    }
}

/// The tokens that were made once and for all, of every algorithm.
pub(crate) fn recorded() -> Value {
    serde_json::from_str(include_str!("tests/jwt.json")).unwrap()
}

/// Their keys.
pub(crate) fn recorded_keys(source: &KeySource, algorithms: &[Algorithm]) -> Keys {
    Keys::parse(source, algorithms, recorded()["jwks"].to_string().as_bytes()).unwrap()
}

/// Both of Google's sources.
pub(crate) const GOOGLES: [KeySource; 2] = [GOOGLE, GOOGLE_IAP];
