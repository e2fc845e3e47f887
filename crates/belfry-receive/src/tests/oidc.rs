//! Tokens: every algorithm, every check, and the documents that keys come in.

use belfry_api::OidcProvider;
use http::StatusCode;

use super::*;
use crate::{BadDocument, Discovery, Reason, keys, no_claims};

fn issuer_source() -> KeySource {
    KeySource::Issuer(ISSUER.into())
}

#[test]
fn every_algorithm_that_the_issuer_names_is_verified() {
    let recorded = recorded();
    let names = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    for name in names {
        let algorithm = Algorithm::parse(name).unwrap();
        assert_eq!(algorithm.name(), name);
        let mut case = Case::of("generic-oidc");
        let token = recorded["tokens"][name].as_str().unwrap();
        case.keys = Some(recorded_keys(&issuer_source(), &[algorithm]));
        case.bearer(token);
        let claims = case.accepted().claims.unwrap();
        assert_eq!((&claims["repository"], &claims["run"]), (&json!("acme/app"), &json!(7)), "{name}");

        // The same token, when the issuer doesn't use the algorithm, or with any part changed.
        let others: Vec<Algorithm> =
            names.iter().filter(|other| **other != name).map(|other| Algorithm::parse(other).unwrap()).collect();
        case.keys = Some(recorded_keys(&issuer_source(), &others));
        assert!(case.refused().why.contains("unexpected signature algorithm"), "{name}: {}", case.refused());
        case.keys = Some(recorded_keys(&issuer_source(), &[algorithm]));
        let parts: Vec<&str> = token.split('.').collect();
        let claims = BASE64_URL_SAFE_NO_PAD.encode(claims_with("repository", "evil/app").to_string());
        let half = &parts[2][..parts[2].len() / 2 / 4 * 4];
        let zeros = "A".repeat(parts[2].len());
        for changed in [
            format!("{}.{claims}.{}", parts[0], parts[2]),
            format!("{}.{}.{half}", parts[0], parts[1]),
            format!("{}.{}.{zeros}", parts[0], parts[1]),
            format!("{}.{}.", parts[0], parts[1]),
        ] {
            case.bearer(&changed);
            assert_eq!(case.refused().status(), StatusCode::NOT_FOUND, "{name}");
            assert!(case.refused().why.starts_with("failed to "), "{name}: {}", case.refused());
        }
    }
    for name in ["none", "HS256", "ES512", "rs256", ""] {
        assert_eq!(Algorithm::parse(name), None, "{name}");
    }
}

fn claims_with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

/// A Receiver, and tokens of an issuer that it knows.
fn with_issuer() -> (Case, Issuer) {
    let mut case = Case::of("generic-oidc");
    let issuer = Issuer::new("key-1");
    case.keys = Some(issuer.keys(&issuer_source()));
    (case, issuer)
}

#[test]
fn claims_are_checked() {
    let (mut case, issuer) = with_issuer();
    for good in [
        claims(),
        claims_with("aud", json!(["other", "flux"])),
        claims_with("exp", NOW),
        claims_with("exp", json!(NOW as f64 + 0.5)),
        claims_with("nbf", NOW + 300),
        claims_with("nbf", Value::Null),
    ] {
        case.bearer(&issuer.token(&good));
        case.accepted();
    }
    for (bad, why) in [
        (claims_with("aud", "someone-else"), r#"oidc: expected audience "flux" got ["someone-else"]"#),
        (claims_with("aud", json!(["a", "b"])), r#"oidc: expected audience "flux" got ["a" "b"]"#),
        (claims_with("aud", Value::Null), r#"oidc: expected audience "flux" got []"#),
        (claims_with("exp", NOW - 1), "oidc: token is expired (Token Expiry: 2025-12-31T23:59:59Z)"),
        (claims_with("exp", Value::Null), "oidc: token is expired (it has no expiry)"),
        (claims_with("exp", "tomorrow"), "oidc: token is expired (it has no expiry)"),
        (
            claims_with("nbf", NOW + 301),
            "oidc: current time 2026-01-01T00:00:00.000Z before the nbf (not before) time: 2026-01-01T00:05:01Z",
        ),
    ] {
        case.bearer(&issuer.token(&bad));
        assert_eq!(case.refused().why, format!("failed to verify OIDC token: {why}"));
        assert_eq!(case.refused().reason, Reason::Credential);
    }
    for extreme in [json!(i64::MAX), json!(1e300), json!(-1e300), json!(u64::MAX)] {
        for name in ["exp", "nbf"] {
            case.bearer(&issuer.token(&claims_with(name, extreme.clone())));
            let _ = case.verify();
        }
    }
}

#[test]
fn the_default_audience_is_the_controllers_name() {
    let (mut case, issuer) = with_issuer();
    for audience in [None, Some(String::new())] {
        case.spec.oidc_providers[0].audience = audience;
        case.bearer(&issuer.token(&claims()));
        assert_eq!(case.refused().status(), StatusCode::NOT_FOUND);
        case.bearer(&issuer.token(&claims_with("aud", "notification-controller")));
        case.accepted();
    }
}

#[test]
fn what_is_no_token_is_refused_before_any_key_is_fetched() {
    let (mut case, issuer) = with_issuer();
    let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    for (header, why) in [
        ("", "the Authorization header is missing or malformed"),
        ("Basic abc", "the Authorization header is missing or malformed"),
        ("bearer abc", "the Authorization header is missing or malformed"),
        ("Bearer", "the Authorization header is missing a bearer token"),
        ("Bearer not-a-jwt", "failed to parse bearer token: malformed jwt, expected 3 parts got 1"),
        ("Bearer a.b.c.d", "failed to parse bearer token: malformed jwt, expected 3 parts got 4"),
        (
            "Bearer ..",
            "failed to parse bearer token: malformed jwt header: EOF while parsing a value at line 1 column 0",
        ),
        ("Bearer e30.!.", "failed to parse bearer token: malformed jwt payload: it is not base64url"),
        ("Bearer e30.e30=.", "failed to parse bearer token: malformed jwt payload: it is not base64url"),
        (
            &format!("Bearer e30.{}.", encoded("[]")),
            "failed to parse bearer token: malformed jwt payload: it is not an object",
        ),
        (&format!("Bearer e30.{}.", encoded("{}")), "failed to parse bearer token: it has no issuer"),
        (&format!("Bearer e30.{}.", encoded(r#"{"iss":""}"#)), "failed to parse bearer token: it has no issuer"),
        (&format!("Bearer e30.{}.", encoded(r#"{"iss":5}"#)), "failed to parse bearer token: it has no issuer"),
    ] {
        case.set("authorization", header);
        assert_eq!(case.refused().why, why, "{header}");
        assert_eq!(keys(&case.spec, &case.inbound()).unwrap_err().why, why, "{header}");
    }
    for other in ["https://other.example", "https://issuer.example/", "https://ISSUER.example", "http://issuer.example"]
    {
        case.bearer(&issuer.token(&claims_with("iss", other)));
        let expected = format!("no oidcProvider configured for issuer {other:?}");
        assert_eq!(keys(&case.spec, &case.inbound()).unwrap_err().why, expected);
        assert_eq!(case.refused().why, expected);
    }
    case.spec.oidc_providers.clear();
    assert_eq!(case.refused().why, "generic-oidc receiver has no oidcProviders configured");
}

#[test]
fn keys_are_asked_for_and_only_the_right_ones_count() {
    let (mut case, issuer) = with_issuer();
    case.bearer(&issuer.token(&claims()));
    assert_eq!(keys(&case.spec, &case.inbound()), Ok(Some(issuer_source())));
    case.accepted();

    case.keys = None;
    assert_eq!(
        (case.refused().reason, case.refused().status()),
        (Reason::KeysMissing, StatusCode::SERVICE_UNAVAILABLE)
    );
    case.keys = Some(issuer.keys(&KeySource::Issuer("https://other.example".into())));
    assert_eq!(case.refused().reason, Reason::KeysMissing, "keys of another issuer prove nothing");
    // What can't be right needs no keys to be refused.
    case.bearer(&issuer.token(&claims_with("exp", NOW - 1)));
    assert_eq!(case.refused().reason, Reason::Credential);

    // The issuer has new keys.
    case.keys = Some(Issuer::new("key-0").keys(&issuer_source()));
    case.bearer(&issuer.token(&claims()));
    assert_eq!((case.refused().reason, case.refused().status()), (Reason::UnknownKey, StatusCode::NOT_FOUND));
    // Without an id every key is tried.
    let (mut case, issuer) = with_issuer();
    case.bearer(&issuer.token_with(&json!({ "alg": "ES256" }), &claims()));
    case.accepted();
    case.keys = Some(Issuer::new("key-1").keys(&issuer_source()));
    assert_eq!(case.refused().reason, Reason::Credential);
}

#[test]
fn headers_that_promise_more_than_is_understood_are_refused() {
    let (mut case, issuer) = with_issuer();
    for header in [
        json!({ "alg": "ES256", "kid": "key-1", "crit": ["b64"], "b64": false }),
        json!({ "alg": "none", "kid": "key-1" }),
        json!({ "alg": "HS256", "kid": "key-1" }),
        json!({ "alg": "RS256", "kid": "key-1" }),
        json!({ "alg": "ES384", "kid": "key-1" }),
        json!({ "alg": ["ES256"], "kid": "key-1" }),
        json!({ "kid": "key-1" }),
    ] {
        case.bearer(&issuer.token_with(&header, &claims()));
        assert_eq!(case.refused().reason, Reason::Credential, "{header}");
    }
    // A key in the token is not looked at.
    let stranger = Issuer::new("key-1");
    let header = json!({ "alg": "ES256", "kid": "key-1", "jwk": stranger.jwks()["keys"][0] });
    case.bearer(&stranger.token_with(&header, &claims()));
    assert_eq!(case.refused().reason, Reason::Credential);
}

#[test]
fn validations_decide_after_the_signature() {
    let (mut case, issuer) = with_issuer();
    case.claims = Err("token validation failed: wrong repo; wrong environment".into());
    case.bearer(&issuer.token(&claims())).filtered().body("{");
    assert_eq!(case.refused().why, "token validation failed: wrong repo; wrong environment");
    assert_eq!(case.refused().status(), StatusCode::NOT_FOUND, "and nothing is said of the body");
    case.claims = Ok(());
    assert_eq!(case.refused().status(), StatusCode::BAD_REQUEST);
    case.bearer(&Issuer::new("key-1").token(&claims()));
    let given = Given {
        secret: None,
        keys: case.keys.as_ref(),
        claims: &|_, _| panic!("nobody looks at claims that are not proven"),
        now: Time(NOW * 1_000_000),
    };
    assert!(matches!(verify(&case.spec, &case.inbound(), &given), Verdict::Refused(_)));
    assert!(no_claims(0, &Object::new()).is_err());
}

#[test]
fn the_provider_of_the_issuer_is_the_one_that_counts() {
    let (mut case, issuer) = with_issuer();
    let first = OidcProvider { issuer_url: "https://first.example".into(), ..OidcProvider::default() };
    case.spec.oidc_providers.insert(0, first);
    case.bearer(&issuer.token(&claims()));
    let given = Given {
        secret: None,
        keys: case.keys.as_ref(),
        claims: &|index, claims| {
            assert_eq!((index, &claims["sub"]), (1, &json!("repo:acme/app")));
            Ok(())
        },
        now: Time(NOW * 1_000_000),
    };
    assert!(matches!(verify(&case.spec, &case.inbound(), &given), Verdict::Accepted(_)));
}

#[test]
fn discovery_documents() {
    let parse = |document: Value| Discovery::parse(ISSUER, document.to_string().as_bytes());
    let good = json!({
        "issuer": ISSUER, "jwks_uri": "https://keys.example/jwks",
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none", "ES512", "RS256"],
    });
    let expected = vec![Algorithm::Es256, Algorithm::Rs256];
    let uri = "https://keys.example/jwks".to_owned();
    assert_eq!(parse(good.clone()), Ok(Discovery { jwks_uri: uri, algorithms: expected }));
    for algorithms in [Value::Null, json!([]), json!(["HS256"]), json!("ES256")] {
        let mut document = good.clone();
        document["id_token_signing_alg_values_supported"] = algorithms;
        assert_eq!(parse(document).unwrap().algorithms, [Algorithm::Rs256]);
    }
    for issuer in [json!("https://issuer.example/"), json!("https://evil.example"), Value::Null] {
        let mut document = good.clone();
        document["issuer"] = issuer;
        assert!(parse(document).unwrap_err().to_string().contains("did not match the issuer URL returned by provider"));
    }
    for uri in ["http://keys.example", "file:///etc/passwd", "", "keys", "ftp://x/"] {
        let mut document = good.clone();
        document["jwks_uri"] = uri.into();
        assert_eq!(parse(document), Err(BadDocument::JwksUri), "{uri}");
    }
    let inside = json!({ "issuer": "http://in.cluster", "jwks_uri": "http://in.cluster/keys" }).to_string();
    assert!(Discovery::parse("http://in.cluster", inside.as_bytes()).is_ok());
    assert!(matches!(Discovery::parse(ISSUER, b"<html>"), Err(BadDocument::NotJson(_))));
    for (issuer, url) in [
        (ISSUER, "https://issuer.example/.well-known/openid-configuration"),
        ("https://a.example/b/", "https://a.example/b/.well-known/openid-configuration"),
    ] {
        assert_eq!(KeySource::Issuer(issuer.into()).url(), url);
    }
    assert_eq!(
        GOOGLES.map(|source| source.url().into_owned()),
        [
            "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
            "https://www.gstatic.com/iap/verify/public_key-jwk".to_owned(),
        ]
    );
}

#[test]
fn sets_of_keys() {
    let parse = |document: &str| Keys::parse(&issuer_source(), &[Algorithm::Rs256], document.as_bytes());
    assert_eq!(recorded_keys(&issuer_source(), &[Algorithm::Rs256]).len(), 4);
    assert!(parse(r#"{"keys":[]}"#).unwrap().is_empty());
    let odd = r#"{"keys":[{}, 5, {"kty":"oct","k":"AA"}, {"kty":"EC","crv":"P-521","x":"AA","y":"AA"},
        {"kty":"RSA","n":"!","e":"AQAB"}, {"kty":"EC","crv":"P-256","x":"AA"}, {"kty":"RSA","use":"enc","n":"AA","e":"AA"},
        {"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AA"}]}"#;
    assert!(parse(odd).unwrap().is_empty());
    assert_eq!(parse("{}").unwrap_err(), BadDocument::NoKeys);
    assert!(matches!(parse("[]"), Err(BadDocument::NotJson(_))));
    let many = format!(r#"{{"keys":[{}]}}"#, vec![r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#; 1000].join(","));
    assert_eq!(parse(&many).unwrap().len(), 64);
}

/// Google's tokens, as Pub/Sub sends them.
mod google {
    use super::*;

    fn with_google() -> (Case, Issuer) {
        let mut case = Case::of("gcr");
        let issuer = Issuer::new("iap");
        case.keys = Some(issuer.keys(&GOOGLE_IAP));
        (case, issuer)
    }

    #[test]
    fn keys_depend_on_the_algorithm() {
        let mut case = Case::of("gcr");
        for (name, source) in [("RS256", GOOGLE), ("ES256", GOOGLE_IAP)] {
            case.bearer(recorded()["google"][name].as_str().unwrap());
            assert_eq!(keys(&case.spec, &case.inbound()), Ok(Some(source.clone())));
            case.keys = Some(recorded_keys(&source, KeySource::ALGORITHMS));
            case.accepted();
            let other = GOOGLES.into_iter().find(|other| *other != source).unwrap();
            case.keys = Some(recorded_keys(&other, KeySource::ALGORITHMS));
            assert_eq!(case.refused().reason, Reason::KeysMissing, "{name}");
        }
        case.bearer(recorded()["google"]["RS512"].as_str().unwrap());
        let why = "cannot authenticate GCR request: invalid ID token: expected JWT signed with RS256 or ES256 but found \
                   \"RS512\"";
        assert_eq!(keys(&case.spec, &case.inbound()).unwrap_err().why, why);
    }

    #[test]
    fn claims_are_checked() {
        let (mut case, issuer) = with_google();
        let with = |name: &str, value: Value| {
            let mut claims = google_claims();
            claims[name] = value;
            claims
        };
        for good in [google_claims(), with("iss", json!("accounts.google.com")), with("exp", json!(NOW))] {
            case.bearer(&issuer.token(&good));
            assert_eq!(case.accepted().claims, None, "they are no variable of its filters");
        }
        for (bad, why) in [
            (with("aud", json!("x")), "invalid ID token: audience is 'x', which is not the one in the secret"),
            (
                with("aud", json!([AUDIENCE])),
                "invalid ID token: audience is '<unknown>', which is not the one in the secret",
            ),
            (with("exp", json!(NOW - 1)), "invalid ID token: token expired"),
            (with("exp", Value::Null), "invalid ID token: token expired"),
            (
                with("iss", json!("https://evil.example")),
                "token issuer is 'https://evil.example', want 'accounts.google.com' or 'https://accounts.google.com'",
            ),
            (with("email", json!("x@y")), "token email 'x@y' is not the one in the secret"),
            (with("email", Value::Null), "token email '' is not the one in the secret"),
            (with("email_verified", json!(false)), "token email is not verified"),
            (with("email_verified", json!("true")), "token email is not verified"),
            (with("email_verified", Value::Null), "token email is not verified"),
        ] {
            case.bearer(&issuer.token(&bad));
            assert_eq!(case.refused().why, format!("cannot authenticate GCR request: {why}"));
            assert_eq!(case.refused().status(), StatusCode::NOT_FOUND);
        }
        case.headers.remove("authorization");
        let why = "cannot authenticate GCR request: the Authorization header is missing or malformed";
        assert_eq!(case.refused().why, why);
        case.bearer(&Issuer::new("other").token(&google_claims()));
        assert_eq!(case.refused().reason, Reason::UnknownKey);
        case.keys = None;
        assert_eq!(case.refused().reason, Reason::KeysMissing);
    }
}
