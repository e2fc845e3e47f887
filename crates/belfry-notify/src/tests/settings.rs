//! From Provider and Secrets to requests: precedence, what is forgiven, and what is said about what isn't.

use belfry_http::{Request, header};

use super::{
    Case, answer, probe,
    script::{concluded, spoken},
};
use crate::{Reason, settings::basic};
use belfry_core::notification::Outcome;

const URL: &str = "https://sink.example/hook";

fn request(case: &Case) -> Request {
    spoken(&case.build().unwrap(), &probe("info")).unwrap().remove(0)
}

fn authorization(case: &Case) -> Option<String> {
    request(case).headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned())
}

fn refused(case: &Case) -> (Reason, String) {
    let error = case.build().unwrap_err();
    (error.reason, error.to_string())
}

#[test]
fn the_secrets_address_goes_first_and_is_trimmed() {
    let case = Case::new("generic", "https://example.com|").secret(&[("address", "  https://a.example/x\n")]);
    assert_eq!(request(&case).url.as_str(), "https://a.example/x");
    let empty = Case::new("slack", URL).secret(&[("address", "")]);
    assert_eq!(refused(&empty).0, Reason::Address);
    let long = |n| Case::new("generic", "").secret(&[("address", &format!("https://example.org/{}", "a".repeat(n)))]);
    assert!(long(2028).build().is_ok());
    assert_eq!(refused(&long(2029)).0, Reason::Address);
}

#[test]
fn a_token_loses_its_line_break_as_a_credential_but_not_as_a_key() {
    let token = |type_, value| Case::new(type_, URL).channel("c").secret(&[("token", value)]);
    assert_eq!(authorization(&token("slack", "tok\r\n")).unwrap(), "Bearer tok");
    assert_eq!(authorization(&token("slack", " tok ")).unwrap(), "Bearer  tok ");
    assert_eq!(refused(&token("slack", "to\nk")).0, Reason::Token);
    assert_eq!(authorization(&token("slack", "\n")), None);
    assert_eq!(refused(&token("generic-hmac", "")).0, Reason::Token);
    let signature = |value| request(&token("generic-hmac", value)).headers["x-signature"].clone();
    assert_ne!(signature("key"), signature("key\n"));
    assert_eq!(signature("key"), "sha256=99e55dabad94559d9513b4024891f56caf698573840d2e6dc6bc812c168f0af9");
}

#[test]
fn half_a_pair_is_an_error_only_where_it_is_needed() {
    let with = |type_, pairs: &[(&str, &str)]| Case::new(type_, URL).channel("a/b").secret(pairs);
    assert_eq!(authorization(&with("slack", &[("token", "tok"), ("username", "u")])).unwrap(), "Bearer tok");
    for type_ in ["alertmanager", "grafana"] {
        assert_eq!(authorization(&with(type_, &[("token", "tok"), ("password", "p")])).unwrap(), "Bearer tok");
        assert_eq!(refused(&with(type_, &[("password", "p")])).0, Reason::Credentials, "{type_}");
        assert_eq!(authorization(&with(type_, &[("username", "u")])), None, "{type_}");
    }
    assert_eq!(refused(&with("zulip", &[("password", "p")])).0, Reason::Credentials);
    let split = with("alertmanager", &[("password", "p")]).username("u");
    assert_eq!(authorization(&split).unwrap(), basic("u", "p"));
    let overridden = with("alertmanager", &[("username", "theirs"), ("password", "p")]).username("mine");
    assert_eq!(authorization(&overridden).unwrap(), basic("theirs", "p"));
    let poster = with("slack", &[("username", "only")]).username("mine");
    assert!(String::from_utf8_lossy(&request(&poster).body).contains(r#""username":"mine""#));
}

#[test]
fn headers_are_a_map_of_scalars() {
    let with = |yaml| Case::new("generic", URL).secret(&[("headers", yaml)]);
    let headers = request(&with("X-A: 5\nX-B: true\n'X-C': \"a: b\"\nX-D:\nHost: evil\nContent-Length: 1\n")).headers;
    let get = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(["x-a", "x-b", "x-c", "x-d"].map(|name| get(name).unwrap()), ["5", "true", "a: b", ""]);
    assert_eq!((get("host"), get("content-length")), (None, None));
    assert_eq!(request(&with(r#"{"X-A": 1.5, "Content-Type": "text/x"}"#)).headers[header::CONTENT_TYPE], "text/x");
    assert_eq!(request(&with("Gotk-Component: mine")).headers["gotk-component"], "mine");
    assert!(with(" \n").build().is_ok());
    for yaml in ["foo", "[a]", "X-A: [1]", "X-A: {b: c}", "a b: c", "X-A: \"b\\nc\"", ": :\n  - {"] {
        assert_eq!(refused(&with(yaml)).0, Reason::Headers, "{yaml}");
    }
    // Only the generic types use them, but a broken map is said at once, as with the peer.
    assert!(request(&Case::new("slack", URL).secret(&[("headers", "X-A: b")])).headers.get("x-a").is_none());
    let signed = Case::new("generic-hmac", URL).secret(&[("token", "key"), ("headers", "X-Signature: mine")]);
    assert!(request(&signed).headers["x-signature"].to_str().unwrap().starts_with("sha256="));
}

#[test]
fn proxies_have_an_order() {
    let bad = "ftp://bad.example";
    let mut spec = Case::new("slack", URL);
    spec.spec.proxy = Some(bad.into());
    assert_eq!(refused(&spec).0, Reason::Proxy);
    let secret = spec.clone().secret(&[("proxy", " http://good.example:3128\n")]);
    assert!(secret.build().is_ok());
    let secret = spec.secret(&[("proxy", bad)]);
    assert_eq!(refused(&secret).0, Reason::Proxy);
    let reference = secret.proxy_secret(&[("address", "http://p.example"), ("username", "u"), ("password", "p")]);
    assert!(reference.build().is_ok());
    assert_eq!(refused(&Case::new("slack", URL).proxy_secret(&[("username", "u")])).0, Reason::Proxy);
    assert!(Case::new("slack", URL).proxy_secret(&[("address", "socks5://p.example:1080")]).build().is_ok());
}

#[test]
fn certificates_have_two_sets_of_names() {
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::new(vec!["x".into()]).unwrap().self_signed(&key).unwrap().pem();
    let key = key.serialize_pem();
    let with = |pairs: &[(&str, &str)]| Case::new("slack", URL).cert_secret(pairs);
    for good in [
        &[("ca.crt", &*pem)][..],
        &[("caFile", &pem)],
        &[("ca.crt", &pem), ("caFile", "invalid")],
        &[("tls.crt", &pem), ("tls.key", &key)],
        &[("certFile", &pem), ("keyFile", &key), ("ca.crt", &pem)],
    ] {
        assert!(with(good).build().is_ok(), "{:?}", good.iter().map(|(key, _)| key).collect::<Vec<_>>());
    }
    for bad in [
        &[("other", "x")][..],
        &[("ca.crt", "aaaaa")],
        &[("tls.crt", &pem)],
        &[("ca.crt", &pem), ("tls.key", &key)],
        &[("tls.crt", &pem), ("tls.key", "x")],
    ] {
        assert_eq!(refused(&with(bad)).0, Reason::Tls);
    }
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let mut said = String::new();
    let mut missing = Case::new("slack", URL).secret(&[]);
    missing.secret = None;
    let mut timeout = Case::new("slack", URL);
    timeout.spec.timeout = Some("soon".into());
    let mut binary = Case::new("slack", URL).secret(&[]);
    binary.secret = Some([("token".to_owned(), vec![0xff])].into_iter().collect());
    const HUB: &str = "https://github.com/foo/bar";
    let git = |type_, address, pairs: &[(&str, &str)]| Case::new(type_, address).secret(pairs);
    let mut identity = Case::new("azuredevops", "https://dev.azure.com/org/proj/_git/repo");
    identity.spec.service_account_name = Some("hub".into());
    for case in [
        Case::new("foo", URL),
        Case::new("nats", URL),
        Case::new("slack", ""),
        Case::new("slack", "").secret(&[("token", "t")]),
        Case::new("slack", "https://bad url :)"),
        Case::new("slack", "https://a.example/\nb"),
        Case::new("generic", "/foo"),
        Case::new("generic", "ftp://h/s"),
        Case::new("generic", "").secret(&[("address", "not a url with a secret")]),
        Case::new("generic-hmac", URL),
        Case::new("opsgenie", URL).secret(&[("other", "x")]),
        Case::new("generic", URL).secret(&[("headers", "secret")]),
        Case::new("pagerduty", URL),
        Case::new("telegram", "").secret(&[("token", "t")]),
        Case::new("zulip", URL).channel("invalid_format"),
        Case::new("alertmanager", URL).secret(&[("password", "p")]),
        Case::new("slack", URL).proxy_secret(&[("address", "https://exampleproxy.com|")]),
        Case::new("slack", URL).cert_secret(&[("ca.crt", "aaaaa")]),
        missing,
        timeout,
        binary,
        git("github", "foo/bar", &[("token", "t")]),
        git("github", "", &[("token", "t")]),
        git("github", "https://h.example/a/b/c", &[("token", "t")]),
        git("github", "file:///foo/bar", &[("token", "t")]),
        git("github", "https://h.example/a/b", &[("other", "x")]),
        git("gitlab", "https://h.example/a/b/c", &[]),
        git("gitea", "https://h.example/a/b", &[("token", "t"), ("tls.crt", "x")]),
        git("bitbucket", "https://bitbucket.org/a/b", &[("password", "p")]),
        git("bitbucketserver", "ssh://git@h.example/scm/p/r.git", &[("token", "t")]),
        git("bitbucketserver", "https://h.example/p/r.git", &[("token", "t")]),
        git("bitbucketserver", "https://h.example/scm/p/r.git", &[("username", "u")]),
        git("azuredevops", "https://h.example/a/b/c", &[("token", "t")]),
        git("github", HUB, &[("githubAppID", "1")]),
        git("github", HUB, &[("githubAppPrivateKey", "keysecret")]),
        git("github", HUB, &[("githubAppID", "1"), ("githubAppPrivateKey", "keysecret")]),
        git(
            "github",
            HUB,
            &[("githubAppInstallationID", "x"), ("githubAppID", "1"), ("githubAppPrivateKey", "keysecret")],
        ),
        git(
            "github",
            HUB,
            &[("githubAppInstallationID", "1"), ("githubAppID", "1"), ("githubAppPrivateKey", "keysecret")],
        ),
        identity,
    ] {
        let (reason, text) = refused(&case);
        assert!(!text.contains("keysecret"), "{text}");
        said.push_str(&format!("{reason:?}: {text}\n"));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn answers_have_their_meaning() {
    let notifier = Case::new("generic", URL).build().unwrap();
    let mut table = String::new();
    for status in [
        200, 201, 202, 204, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 407, 408, 409, 410, 413, 422, 425, 429,
        500, 501, 502, 503, 504, 599,
    ] {
        let attempted = concluded(&notifier, 0, Ok(answer(status, "")));
        let meaning = match attempted.outcome {
            Outcome::Delivered => "delivered",
            Outcome::Skipped(_) => "skipped",
            Outcome::Retry(_) => "retry",
            Outcome::Misconfigured(_) => "misconfigured",
            Outcome::Rejected(_) => "rejected",
        };
        table.push_str(&format!("{status} {meaning}\n"));
        assert_eq!(attempted.status, Some(status));
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_failure_keeps_status_retry_after_and_the_beginning_of_the_answer() {
    let notifier = Case::new("generic", URL).build().unwrap();
    let mut slow = answer(429, &format!("  slow\r\n\tdown {}", "x".repeat(1000)));
    slow.retry_after = Some(std::time::Duration::from_secs(7));
    let Outcome::Retry(failure) = concluded(&notifier, 0, Ok(slow)).outcome else { panic!() };
    assert_eq!(failure.retry_after, Some(std::time::Duration::from_secs(7)));
    assert_eq!((failure.status, failure.unknown), (Some(429), false));
    assert!(failure.error.starts_with("answered 429 Too Many Requests: slow down xxx"), "{}", failure.error);
    assert_eq!(failure.error.len(), "answered 429 Too Many Requests: ".len() + 256);
    for (status, unknown) in [(500, true), (502, true), (503, false), (504, true), (429, false), (408, false)] {
        let Outcome::Retry(failure) = concluded(&notifier, 0, Ok(answer(status, ""))).outcome else { panic!() };
        assert_eq!(failure.unknown, unknown, "{status}");
    }
}
