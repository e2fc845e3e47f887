//! The provider types: one line each.

use belfry_core::decide::AgeLimit;

use crate::{
    Misconfigured, Reason, git,
    line::Conversation,
    protocol::{Protocol, Speech},
    providers::{
        alertmanager, belfry, cdevents, datadog, discord, generic, googlechat, grafana, incidentio, lark, matrix,
        msteams, opsgenie, otel, pagerduty, rocket, sentry, slack, telegram, webex, zoom, zulip,
    },
    settings::Resolved,
};

/// Checks the settings and makes what speaks.
pub(crate) enum Open {
    Plain(fn(&Resolved<'_>) -> Result<Box<dyn Protocol>, Misconfigured>),
    Conversation(fn(&Resolved<'_>) -> Result<Box<dyn Conversation>, Misconfigured>),
}

impl Open {
    pub(crate) fn speech(&self, resolved: &Resolved<'_>) -> Result<Speech, Misconfigured> {
        Ok(match self {
            Self::Plain(open) => Speech::Plain(open(resolved)?),
            Self::Conversation(open) => Speech::Conversation(open(resolved)?),
        })
    }
}

/// A provider type that this version speaks.
pub(crate) struct Entry {
    /// Name in `spec.type`.
    pub(crate) type_: &'static str,
    /// How it is opened.
    pub(crate) open: Open,
}

/// Every type that this version speaks.
pub(crate) const SUPPORTED: &[Entry] = &[
    Entry { type_: "alertmanager", open: Open::Plain(alertmanager::open) },
    Entry { type_: "azuredevops", open: Open::Conversation(git::azuredevops::open) },
    Entry { type_: "belfry", open: Open::Plain(belfry::open) },
    Entry { type_: "bitbucket", open: Open::Conversation(git::bitbucket::open) },
    Entry { type_: "bitbucketserver", open: Open::Conversation(git::bitbucketserver::open) },
    Entry { type_: "cdevents", open: Open::Plain(cdevents::open) },
    Entry { type_: "datadog", open: Open::Plain(datadog::open) },
    Entry { type_: "discord", open: Open::Plain(discord::open) },
    Entry { type_: "generic", open: Open::Plain(generic::open) },
    Entry { type_: "generic-hmac", open: Open::Plain(generic::open_signed) },
    Entry { type_: "gitea", open: Open::Conversation(git::gitea::open) },
    Entry { type_: "giteapullrequestcomment", open: Open::Conversation(git::gitea::open_comments) },
    Entry { type_: "github", open: Open::Conversation(git::github::open) },
    Entry { type_: "githubdispatch", open: Open::Conversation(git::github::open_dispatch) },
    Entry { type_: "githubpullrequestcomment", open: Open::Conversation(git::github::open_comments) },
    Entry { type_: "gitlab", open: Open::Conversation(git::gitlab::open) },
    Entry { type_: "gitlabmergerequestcomment", open: Open::Conversation(git::gitlab::open_comments) },
    Entry { type_: "googlechat", open: Open::Plain(googlechat::open) },
    Entry { type_: "grafana", open: Open::Plain(grafana::open) },
    Entry { type_: "incident.io", open: Open::Plain(incidentio::open) },
    Entry { type_: "lark", open: Open::Plain(lark::open) },
    Entry { type_: "matrix", open: Open::Plain(matrix::open) },
    Entry { type_: "msteams", open: Open::Plain(msteams::open) },
    Entry { type_: "opsgenie", open: Open::Plain(opsgenie::open) },
    Entry { type_: "otel", open: Open::Plain(otel::open) },
    Entry { type_: "pagerduty", open: Open::Plain(pagerduty::open) },
    Entry { type_: "rocket", open: Open::Plain(rocket::open) },
    Entry { type_: "sentry", open: Open::Plain(sentry::open) },
    Entry { type_: "slack", open: Open::Plain(slack::open) },
    Entry { type_: "telegram", open: Open::Plain(telegram::open) },
    Entry { type_: "webex", open: Open::Plain(webex::open) },
    Entry { type_: "zoom", open: Open::Plain(zoom::open) },
    Entry { type_: "zulip", open: Open::Plain(zulip::open) },
];

/// Every type that Flux's Provider knows, in the order of its CRD.
pub const FLUX_TYPES: [&str; 34] = [
    "slack",
    "discord",
    "msteams",
    "rocket",
    "generic",
    "generic-hmac",
    "github",
    "gitlab",
    "gitea",
    "giteapullrequestcomment",
    "bitbucketserver",
    "bitbucket",
    "azuredevops",
    "googlechat",
    "googlepubsub",
    "webex",
    "sentry",
    "azureeventhub",
    "telegram",
    "lark",
    "matrix",
    "opsgenie",
    "alertmanager",
    "grafana",
    "githubdispatch",
    "githubpullrequestcomment",
    "gitlabmergerequestcomment",
    "pagerduty",
    "datadog",
    "nats",
    "zulip",
    "otel",
    "zoom",
    "incident.io",
];

pub(crate) fn entry(type_: &str) -> Result<&'static Entry, Misconfigured> {
    SUPPORTED.iter().find(|entry| entry.type_ == type_).ok_or_else(|| {
        if FLUX_TYPES.contains(&type_) {
            let text = format!("type '{type_}' is known to Flux but not supported by this version of Belfry");
            Misconfigured::new(Reason::UnsupportedType, text)
        } else {
            let text =
                format!("provider type '{type_}' is not known; see spec.type in the documentation for all types");
            Misconfigured::new(Reason::UnknownType, text)
        }
    })
}

/// Whether this version speaks a provider type.
pub fn is_supported(provider_type: &str) -> bool {
    SUPPORTED.iter().any(|entry| entry.type_ == provider_type)
}

/// How long deliveries to a provider of this type are worth sending.
pub fn age_limit(provider_type: &str) -> AgeLimit {
    match provider_type {
        "slack" | "discord" | "msteams" | "rocket" | "googlechat" | "webex" | "telegram" | "lark" | "matrix"
        | "zulip" | "zoom" => AgeLimit::Chat,
        "pagerduty" | "opsgenie" | "alertmanager" | "grafana" | "incident.io" | "sentry" | "datadog" | "otel" => {
            AgeLimit::Incident
        }
        "belfry" => AgeLimit::Retention,
        _ => AgeLimit::Record,
    }
}

/// Whether providers of this type speak to a git host.
pub(crate) fn is_git(provider_type: &str) -> bool {
    let entry = SUPPORTED.iter().find(|entry| entry.type_ == provider_type);
    entry.is_some_and(|entry| matches!(entry.open, Open::Conversation(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_type_stands_once_and_in_order() {
        assert!(SUPPORTED.is_sorted_by(|a, b| a.type_ < b.type_));
        assert!(is_supported("slack") && !is_supported("nats") && !is_supported("foo"));
    }

    #[test]
    fn the_documentation_has_every_type_in_its_place() {
        let text = include_str!("../../../docs/providers.md");
        let (spoken, waiting) = text.split_once("## Waiting list").unwrap();
        let rows = |text: &str| -> Vec<String> {
            let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
            cells.map(|(type_, _)| type_.to_owned()).collect()
        };
        let mut documented = rows(spoken);
        documented.sort();
        assert_eq!(documented, SUPPORTED.iter().map(|entry| entry.type_).collect::<Vec<_>>());
        let mut missing: Vec<&str> = FLUX_TYPES.into_iter().filter(|type_| !is_supported(type_)).collect();
        let mut waiting = rows(waiting);
        missing.sort_unstable();
        waiting.sort();
        assert_eq!(waiting, missing);
        // Each under the heading of its age.
        for section in spoken.split("\n## ").skip(1) {
            let limits: Vec<AgeLimit> = rows(section).iter().map(|type_| age_limit(type_)).collect();
            let age = match limits[0] {
                AgeLimit::Retention => "as long as events are kept".to_owned(),
                limit => format!("{} h", limit.duration().as_secs() / 3600),
            };
            assert!(limits.iter().all(|limit| *limit == limits[0]), "{section}");
            assert!(section.contains(&format!("Age: {age}.")), "{section}");
        }
    }

    #[test]
    fn unsupported_types_are_told_from_unknown_ones() {
        assert_eq!(entry("nats").err().unwrap().reason, Reason::UnsupportedType);
        assert_eq!(entry("foo").err().unwrap().reason, Reason::UnknownType);
    }

    #[test]
    fn classes() {
        let of = |limit| FLUX_TYPES.into_iter().filter(|type_| age_limit(type_) == limit).count();
        assert_eq!((of(AgeLimit::Chat), of(AgeLimit::Incident), of(AgeLimit::Record)), (11, 8, 15));
    }
}
