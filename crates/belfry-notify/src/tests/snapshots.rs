//! What every provider type sends, for the reader and against change. A new type needs a case in `recorded_cases`.

use std::fmt::Write;

use belfry_core::notification::Notification;

use super::{Case, peer::recorded_cases, probe, probe_for, script::spoken};
use crate::{protocol::Unsent, providers::otel, registry::SUPPORTED};

fn rendered(case: &Case, notification: &Notification) -> String {
    let mut out = String::new();
    match spoken(&case.build().unwrap(), notification) {
        Ok(requests) => {
            for request in requests {
                writeln!(out, "{} {}", request.method, request.url).unwrap();
                for (name, value) in &request.headers {
                    writeln!(out, "{name}: {}", value.to_str().unwrap()).unwrap();
                }
                let protobuf =
                    request.headers.get("content-type").is_some_and(|value| value == "application/x-protobuf");
                let text = || String::from_utf8_lossy(&request.body).into_owned();
                let body = if protobuf { otel::readable(&request.body) } else { text() };
                writeln!(out, "\n{body}\n").unwrap();
            }
        }
        Err(unsent) => writeln!(out, "{unsent:?}").unwrap(),
    }
    out
}

#[test]
fn every_type_renders() {
    let cases = recorded_cases();
    for entry in SUPPORTED {
        assert!(cases.iter().any(|(_, case)| case.spec.type_ == entry.type_), "no case for '{}'", entry.type_);
    }
    for (name, case) in cases {
        let mut out = String::new();
        for severity in ["info", "error", "trace"] {
            writeln!(out, "#### {severity}\n{}", rendered(&case, &probe_for(&case.spec.type_, severity))).unwrap();
        }
        let mut bare = probe("info");
        bare.event.metadata.clear();
        bare.event.timestamp = None;
        bare.event.reason = "Progressing".into();
        writeln!(out, "#### without metadata and time, progressing\n{}", rendered(&case, &bare)).unwrap();
        insta::assert_snapshot!(name, out);
    }
}

#[test]
fn what_is_too_long_is_cut_and_nothing_else() {
    let sizes = |message: &str| -> Vec<(String, usize)> {
        let size = |(name, case): (&str, Case)| {
            let mut notification = probe_for(&case.spec.type_, "error");
            notification.event.message = message.into();
            let requests = spoken(&case.build().unwrap(), &notification).unwrap();
            (name.to_owned(), requests.iter().map(|request| request.body.len()).sum())
        };
        recorded_cases().into_iter().map(size).collect()
    };
    // As long as a controller ever writes; every second character needs an escape in JSON.
    insta::assert_yaml_snapshot!(sizes(&"a<".repeat(19_500)));
}

#[test]
fn limits_of_destinations_hold() {
    let body = |type_: &str, change: &dyn Fn(&mut Notification)| {
        let (_, case) = recorded_cases().into_iter().find(|(name, _)| *name == type_).unwrap();
        let mut notification = probe("error");
        change(&mut notification);
        let request = spoken(&case.build().unwrap(), &notification).unwrap().remove(0);
        serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()
    };
    let long = |n: &mut Notification| n.event.message = "ä".repeat(39_000);
    let chars = |value: &serde_json::Value| value.as_str().unwrap().chars().count();

    let embed = &body("discord", &|n| {
        long(n);
        n.event.metadata.extend((0..40).map(|i| (format!("k{i}"), "v".repeat(2000))));
    })["attachments"][0];
    assert_eq!(chars(&embed["text"]), 4096);
    let fields = embed["fields"].as_array().unwrap();
    let total: usize = fields.iter().map(|field| chars(&field["title"]) + chars(&field["value"])).sum();
    assert!(!fields.is_empty() && fields.len() <= 25 && total + 4096 + chars(&embed["author_name"]) <= 6000);

    let summary = &body("pagerduty", &|n| n.event.involved_object.name = "n".repeat(2000))["payload"]["summary"];
    assert_eq!(chars(summary), 1024);
    assert!(summary.as_str().unwrap().ends_with('…'));

    let text = &body("telegram", &long)["text"];
    // Escapes don't count; there are a few in heading and metadata.
    assert!((4090..4120).contains(&chars(text)), "{}", chars(text));
    assert!(body("webex", &long)["markdown"].as_str().unwrap().len() <= 7439);
    assert_eq!(chars(&body("opsgenie", &long)["description"]), 15_000);
    assert_eq!(chars(&body("slack", &|n| n.event.message = "x".repeat(50_000))["attachments"][0]["text"]), 40_000);
}

#[test]
fn progress_is_no_incident_and_no_status() {
    for (name, case) in recorded_cases() {
        let type_ = case.spec.type_.as_str();
        let mut notification = probe_for(type_, "info");
        notification.event.reason = "Progressing".into();
        let skipped = matches!(spoken(&case.build().unwrap(), &notification), Err(Unsent::Skip(_)));
        let statuses = matches!(type_, "github" | "gitlab" | "bitbucket" | "bitbucketserver" | "azuredevops");
        assert_eq!(skipped, statuses || matches!(type_, "pagerduty" | "incident.io" | "cdevents"), "{name}");
    }
}
