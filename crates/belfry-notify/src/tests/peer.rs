//! Ours against what was recorded of the peer, byte for byte. The recording lies beside the project, not in it; the
//! snapshots stand alone.

use std::{collections::BTreeMap, fs, path::Path};

use belfry_http::Request;

use super::{Case, probe_for, script::spoken};

/// Headers that belong to the client rather than to the provider.
const CLIENTS_OWN: [&str; 5] = ["host", "accept-encoding", "content-length", "user-agent", "x-tfs-session"];
/// What the peer's libraries ask for and nobody needs: a version, and where an API is.
const NOT_NEEDED: [&str; 2] = ["GET /api/v1/version ", "OPTIONS /org/_apis "];
/// Where the recording was made.
const RECORDER: &str = "127.0.0.1:45121";
/// The peer iterates over maps in random order: where it did so inside one text, this is the order that we keep.
const REORDERED: [(&str, &str); 3] = [
    (
        r"\n\\- *summary*: sum:mary\n\\- *revision*: main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738",
        r"\n\\- *revision*: main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738\n\\- *summary*: sum:mary",
    ),
    (
        r"summary: sum:mary\nrevision: main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738\n",
        r"revision: main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738\nsummary: sum:mary\n",
    ),
    (
        r#"{"key":"summary","value":"sum:mary"},{"key":"revision","value":"main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738"}"#,
        r#"{"key":"revision","value":"main@sha1:5394cb7f48332b2de7c17dd8b8384bbc84b7e738"},{"key":"summary","value":"sum:mary"}"#,
    ),
];

/// The Providers of the recording, by the names that it gives them.
pub(super) fn recorded_cases() -> Vec<(&'static str, Case)> {
    let at = |type_: &str, path: &str| Case::new(type_, &format!("http://sink.example{path}"));
    vec![
        (
            "belfry",
            at("belfry", "?cluster=eu").secret(&[("token", "tok"), ("headers", "X-A: b\nBelfry-Event-Id: mine")]),
        ),
        (
            "belfry-signed",
            at("belfry", "/b/events?cluster=eu").secret(&[("token", "no"), ("hmacKey", "0123456789abcdef\n")]),
        ),
        ("cdevents", at("cdevents", "/in?a=1").secret(&[("token", "tok")])),
        ("generic", at("generic", "/g").secret(&[("headers", "X-A: b")])),
        ("generic-hmac", at("generic-hmac", "/g").secret(&[("token", "key")])),
        ("slack", at("slack", "/s")),
        ("slack-token", at("slack", "/s").channel("gen").username("un").secret(&[("token", "tok")])),
        ("discord", at("discord", "/api/webhooks/1/a?wait=true")),
        ("rocket", at("rocket", "/s")),
        ("msteams", at("msteams", "/s")),
        ("msteams-old", Case::new("msteams", "https://x.webhook.office.com/s")),
        ("googlechat", at("googlechat", "/s?key=1")),
        ("webex", at("webex", "/v1/messages").channel("room").secret(&[("token", "tok")])),
        ("telegram", Case::new("telegram", "").channel("-100:7").secret(&[("token", "tok")])),
        ("lark", at("lark", "/s")),
        ("matrix", at("matrix", "").channel("!jez:matrix.org").secret(&[("token", "tok")])),
        ("opsgenie", at("opsgenie", "/v2/alerts").secret(&[("token", "tok")])),
        ("alertmanager-token", at("alertmanager", "/api/v2/alerts/").secret(&[("token", "tok")])),
        (
            "alertmanager-both",
            at("alertmanager", "/api/v2/alerts/").secret(&[("token", "tok"), ("username", "u"), ("password", "p")]),
        ),
        ("grafana", at("grafana", "/api/annotations").secret(&[("token", "tok")])),
        ("grafana-basic", at("grafana", "/api/annotations").secret(&[("username", "u"), ("password", "p")])),
        ("pagerduty", at("pagerduty", "/x/y?z").channel("rk")),
        ("datadog", at("datadog", "/x?y").secret(&[("token", "apikey")])),
        ("github", at("github", "/foo/bar").secret(&[("token", "tok")])),
        ("githubdispatch", at("githubdispatch", "/foo/bar").secret(&[("token", "tok")])),
        ("githubpullrequestcomment", at("githubpullrequestcomment", "/foo/bar").secret(&[("token", "tok")])),
        ("gitlab", at("gitlab", "/foo/sub/bar.git").secret(&[("token", "tok")])),
        ("gitlabmr", at("gitlabmergerequestcomment", "/foo/bar").secret(&[("token", "tok")])),
        ("gitea", at("gitea", "/foo/bar").secret(&[("token", "tok")])),
        ("giteapr", at("giteapullrequestcomment", "/foo/bar").secret(&[("token", "tok")])),
        ("bitbucket", Case::new("bitbucket", "git@bitbucket.org:foo/bar.git").secret(&[("token", "user:pass")])),
        ("bitbucketserver", at("bitbucketserver", "/ctx/scm/proj/repo.git").secret(&[("token", "tok")])),
        ("azuredevops", at("azuredevops", "/org/proj/_git/repo").secret(&[("token", "tok")])),
        ("otel", at("otel", "/v1/traces")),
        ("otel-headers", at("otel", "/custom").secret(&[("headers", "X-A: b"), ("username", "u"), ("password", "p")])),
        ("otel-nopath", at("otel", "").secret(&[("headers", "X-A: b"), ("token", "tok")])),
        ("sentry", Case::new("sentry", "http://pubkey@sink.example/42").channel("staging")),
        ("sentry-notrace", Case::new("sentry", "http://pubkey@sink.example/42")),
        ("zulip", at("zulip", "/x?y=1").channel("ch/to/pic").secret(&[("username", "u"), ("password", "p")])),
        ("zoom", at("zoom", "/hook?a=1").secret(&[("token", "tok")])),
        ("incident.io", at("incident.io", "/v2/alert_events/http/id").secret(&[("token", "tok")])),
    ]
}

#[derive(Debug, PartialEq)]
struct Sent {
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Sent {
    fn ours(request: &Request) -> Self {
        let url = &request.url;
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let header = |(name, value): (&belfry_http::HeaderName, &belfry_http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        Self {
            line: format!("{} {}{query} HTTP/1.1", request.method, url.path()),
            headers: request.headers.iter().map(header).collect(),
            body: String::from_utf8(request.body.to_vec()).unwrap(),
        }
    }

    fn recorded(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let line = lines.next().unwrap().to_owned();
        let reads = line.starts_with("GET ");
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .filter(|(name, _)| !CLIENTS_OWN.contains(&name.as_str()))
            // Gitea's library says what type a body has that isn't there.
            .filter(|(name, _)| !(reads && name == "content-type"))
            // GitHub's library asks for reactions, a preview that ended years ago.
            .map(|(name, value)| (name, value.replace("vnd.github.squirrel-girl-preview", "vnd.github.v3+json")))
            .collect();
        let body = body.trim_end_matches('\n').replace(RECORDER, "sink.example");
        let body = REORDERED.iter().fold(body, |body, (theirs, ours)| body.replace(theirs, ours));
        Self { line, headers, body }
    }
}

/// The recorder shows Protobuf as JSON, and how long it was: ids and the end of the span are of one length always.
fn assert_otel(ours: &Request, recorded: &str, title: &str) {
    let (head, json) = recorded.split_once("\n\n").unwrap();
    assert!(head.starts_with(&format!("POST {} HTTP/1.1\n", ours.url.path())), "{title}");
    for (name, value) in &ours.headers {
        let line = format!("{name}: {}", value.to_str().unwrap()).to_lowercase();
        assert!(head.lines().any(|theirs| theirs.to_lowercase() == line), "{title}: {line}");
    }
    assert!(head.contains(&format!("Content-Length: {}\n", ours.body.len())), "{title}: {} bytes", ours.body.len());
    let said = String::from_utf8_lossy(&ours.body);
    let json: serde_json::Value = serde_json::from_str(json.trim().trim_end_matches('-')).unwrap();
    let mut left = vec![&json];
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::Array(items) => left.extend(items),
            serde_json::Value::Object(map) => {
                let random = ["traceId", "spanId", "kind", "code", "startTimeUnixNano", "endTimeUnixNano"];
                left.extend(map.iter().filter(|(key, _)| !random.contains(&key.as_str())).map(|(_, value)| value));
            }
            serde_json::Value::String(text) => assert!(said.contains(text.as_str()), "{title}: {text}"),
            _ => {}
        }
    }
}

/// What is said, without what the peer's library tells of itself and its machine, and without ids.
fn assert_sentry(ours: &Request, recorded: &str, title: &str) {
    let payload = |body: &str| {
        let lines: Vec<&str> = body.trim_start_matches('\n').lines().collect();
        let item: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
        let mut payload: serde_json::Value = serde_json::from_str(lines[2]).unwrap();
        let object = payload.as_object_mut().unwrap();
        for key in ["event_id", "sdk", "platform", "modules"] {
            object.remove(key);
        }
        if item["type"] == "transaction" {
            // The peer's is the name of its pod.
            object.remove("server_name");
        }
        for key in ["device", "os", "runtime"] {
            object["contexts"].as_object_mut().unwrap().remove(key);
        }
        let mut text = payload.to_string();
        for id in ["trace_id", "span_id"] {
            let ids: Vec<String> = text.split(&format!("\"{id}\":\"")).skip(1).map(|t| t[..16].to_owned()).collect();
            assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{title}: {text}");
            if let Some(value) = payload.pointer(&format!("/contexts/trace/{id}")) {
                text = text.replace(value.as_str().unwrap(), id);
            }
        }
        (item["type"].clone(), serde_json::from_str::<serde_json::Value>(&text).unwrap())
    };
    let (head, body) = recorded.split_once("\n\n").unwrap();
    assert!(head.starts_with("POST /api/42/envelope/ HTTP/1.1\n") && ours.url.path() == "/api/42/envelope/", "{title}");
    assert!(
        head.contains("X-Sentry-Auth: Sentry sentry_version=7, ") && head.contains(", sentry_key=pubkey"),
        "{title}"
    );
    assert!(ours.headers["x-sentry-auth"].to_str().unwrap().ends_with(", sentry_key=pubkey"), "{title}");
    assert_eq!(ours.headers["content-type"], "application/x-sentry-envelope");
    assert_eq!(payload(&String::from_utf8_lossy(&ours.body)), payload(body), "{title}");
}

#[test]
fn requests_are_those_of_the_peer() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/peer-requests.txt");
    let Ok(text) = fs::read_to_string(&file) else {
        println!("SKIPPED: there is no recording of the peer's requests; only the snapshots were compared");
        return;
    };
    let cases: BTreeMap<&str, Case> = recorded_cases().into_iter().collect();
    let mut compared = BTreeMap::<&str, Vec<&str>>::new();
    for section in text.split("######## ").skip(1) {
        let (title, rest) = section.split_once('\n').unwrap();
        let (name, severity) = title.split_once(" [").unwrap();
        let severity = severity.trim_end_matches(']');
        let Some(case) = cases.get(name) else { continue };
        let (requests, _) = rest.split_once("RESULT").unwrap();
        let recorded: Vec<Sent> = requests
            .split("-----\n")
            .filter(|part| !part.trim().is_empty() && !NOT_NEEDED.iter().any(|line| part.starts_with(line)))
            .map(Sent::recorded)
            .collect();
        let spoken = spoken(&case.build().unwrap(), &probe_for(&case.spec.type_, severity));
        match (case.spec.type_.as_str(), spoken) {
            ("otel", Ok(ours)) => assert_otel(&ours[0], requests, title),
            // Of another severity the peer makes an error of its own.
            ("sentry", Ok(ours)) => assert_sentry(&ours[0], requests, title),
            ("sentry", Err(unsent)) => assert!(severity == "trace", "{title}: {unsent:?}"),
            (_, spoken) => match spoken {
                Ok(ours) => assert_eq!(ours.iter().map(Sent::ours).collect::<Vec<_>>(), recorded, "{title}"),
                Err(unsent) => assert!(recorded.is_empty(), "{title}: {unsent:?}"),
            },
        }
        compared.entry(name).or_default().push(severity);
    }
    let theirs = |case: &Case| crate::FLUX_TYPES.contains(&case.spec.type_.as_str());
    for (name, _) in recorded_cases().into_iter().filter(|(_, case)| theirs(case)) {
        let severities = compared.get(name).cloned().unwrap_or_default();
        assert!(severities.starts_with(&["info", "error"]), "{name}: only {severities:?} compared");
    }
}
