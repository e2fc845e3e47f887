//! The table. A row is `event(predicate, [its version in 0.3, 0.4, 0.5, 0.6], content)`; a member is `must` or `may` be
//! there, from and up to a version of the spec if that isn't all of them.

use super::{EventType, Field, Kind, Spec, Subject};
use crate::format::Format;

use Kind::{Filled, OneOf, Text, Texts};

const URI: Kind = Kind::Formatted { format: Format::Uri, filled: false };
const FILLED_URI: Kind = Kind::Formatted { format: Format::Uri, filled: true };
const REFERENCE_URI: Kind = Kind::Formatted { format: Format::UriReference, filled: true };
const TIME: Kind = Kind::Formatted { format: Format::DateTime, filled: true };
const ARTIFACT: Kind = Kind::Artifact { filled: true };

const OUTCOME: Kind = OneOf(&["success", "failure", "cancel", "error"]);
const TEST_OUTCOME: Kind = OneOf(&["pass", "fail", "cancel", "error"]);
const SEVERITY: Kind = OneOf(&["low", "medium", "high", "critical"]);
const DECISION: Kind = OneOf(&["escalated", "delegate", "deferred", "requestChanges", "approved", "rejected"]);

/// `{id, source}`: names something that other events are about.
const REFERENCE: Kind = Kind::Object(&[must("id", Filled), may("source", REFERENCE_URI)]);
/// The same, with a source of any form.
const LOOSE_REFERENCE: Kind = Kind::Object(&[must("id", Filled), may("source", Text)]);
const SBOM: Kind = Kind::Object(&[must("uri", REFERENCE_URI)]);
const TRIGGER: Kind =
    Kind::Open(&[may("type", OneOf(&["manual", "pipeline", "event", "schedule", "other"])), may("uri", URI)]);
const TEST_TYPE: Kind =
    OneOf(&["performance", "functional", "unit", "security", "compliance", "integration", "e2e", "other"]);
const TEST_CASE: Kind = Kind::Object(&[
    must("id", Filled),
    may("version", Text),
    may("name", Text),
    may("type", TEST_TYPE),
    may("uri", URI),
]);
const TEST_SUITE: Kind = Kind::Object(&[must("id", Filled), may("version", Text), may("name", Text), may("uri", URI)]);
const QUEUED_TEST_SUITE: Kind = Kind::Object(&[
    must("id", Filled),
    may("version", Text),
    may("name", Text),
    may("url", URI).until(Spec::V0_4),
    may("uri", URI).since(Spec::V0_5),
]);

/// A document.
pub const DOCUMENT: &[Field] = &[
    must("context", Kind::Context),
    must("subject", Kind::Subject),
    may("customData", Kind::CustomData),
    may("customDataContentType", Text),
];

/// `context`, without `source`.
pub const CONTEXT: &[Field] = &[
    must("version", Filled).until(Spec::V0_4),
    must("specversion", Filled).since(Spec::V0_5),
    must("id", Filled),
    must("type", Kind::EventType),
    must("timestamp", TIME),
    may("schemaUri", FILLED_URI).since(Spec::V0_4),
    may("chainId", Filled).since(Spec::V0_4),
    may("links", Kind::Links).since(Spec::V0_4),
];

/// `subject`, without `source`.
pub const SUBJECT: &[Field] =
    &[must("id", Kind::SubjectId), must("type", Kind::SubjectType).until(Spec::V0_4), must("content", Kind::Content)];

/// `subject.type` where it is only tolerated.
pub const KEPT_TYPE: &[Field] = &[may("type", Kind::SubjectType).since(Spec::V0_5)];

/// `context.source`, then `subject.source`.
pub const SOURCES: (&[Field], &[Field]) = (&[must("source", REFERENCE_URI)], &[may("source", REFERENCE_URI)]);
const LOOSE_SOURCES: (&[Field], &[Field]) = (&[must("source", Filled)], &[may("source", Text)]);

const TAGS: Field = may("tags", Kind::Open(&[]));

/// Links that may be embedded in a context, by their `linkType`.
pub const LINKS: &[(&str, &[Field])] = &[
    ("END", &[must("linkType", Text), may("from", Kind::LinkEnd { required: true }), TAGS]),
    ("PATH", &[must("linkType", Text), must("from", Kind::LinkEnd { required: true }), TAGS]),
    (
        "RELATION",
        &[must("linkType", Text), must("linkKind", Filled), must("target", Kind::LinkEnd { required: false }), TAGS],
    ),
];

const RUN: [Option<&str>; 4] = [Some("0.1.1"), Some("0.2.0"), Some("0.3.0"), Some("0.3.0")];
const CHANGE: [Option<&str>; 4] = [Some("0.1.2"), Some("0.2.0"), Some("0.3.0"), Some("0.3.0")];
const TEST: [Option<&str>; 4] = [Some("0.1.0"), Some("0.2.0"), Some("0.3.0"), Some("0.3.0")];
const FROM_0_4: [Option<&str>; 4] = [None, Some("0.1.0"), Some("0.2.0"), Some("0.2.0")];
const FROM_0_6: [Option<&str>; 4] = [None, None, None, Some("0.1.0")];

const OLD_URL: Field = may("url", Text).until(Spec::V0_4);
const NEW_URI: Field = may("uri", URI).since(Spec::V0_5);
const OLD_VIEW: Field = may("viewUrl", Text).until(Spec::V0_4);
const NEW_VIEW: Field = may("viewUrl", URI).since(Spec::V0_5);
const IN_REPOSITORY: &[Field] = &[may("repository", REFERENCE)];
const IN_ENVIRONMENT: &[Field] = &[may("environment", REFERENCE)];
const DEPLOYMENT: &[Field] = &[must("environment", REFERENCE), must("artifactId", ARTIFACT)];
const A_REPOSITORY: &[Field] = &[may("name", Text), may("owner", Text), OLD_URL, NEW_URI, OLD_VIEW, NEW_VIEW];
const AN_INCIDENT: &[Field] =
    &[may("description", Text), must("environment", REFERENCE), may("service", REFERENCE), may("artifactId", ARTIFACT)];
const A_WAITING_CASE: &[Field] = &[
    may("trigger", TRIGGER),
    must("environment", REFERENCE),
    may("testSuiteRun", LOOSE_REFERENCE),
    may("testCase", TEST_CASE),
];

const A_TICKET: &[Field] = &[
    may("summary", Text),
    may("creator", Filled),
    must("uri", REFERENCE_URI),
    may("ticketType", Text),
    may("group", Text),
    may("assignees", Texts),
    may("priority", Text),
    may("labels", Texts),
    may("milestone", Text),
    may("updatedBy", Text),
];
const A_CLOSED_TICKET: &[Field] = &[
    must("resolution", Filled),
    may("summary", Text),
    may("creator", Filled),
    must("uri", REFERENCE_URI),
    may("ticketType", Text),
    may("group", Text),
    may("assignees", Texts),
    may("priority", Text),
    may("labels", Texts),
    may("milestone", Text),
    may("updatedBy", Text),
];

/// All events of the spec.
pub const SUBJECTS: &[Subject] = &[
    subject(
        "pipelineRun",
        &[
            event("queued", RUN, &[may("pipelineName", Text), OLD_URL, NEW_URI]),
            event(
                "started",
                RUN,
                &[must("pipelineName", Text), must("url", Text).until(Spec::V0_4), must("uri", URI).since(Spec::V0_5)],
            ),
            event(
                "finished",
                RUN,
                &[
                    may("pipelineName", Text),
                    OLD_URL,
                    NEW_URI,
                    may("outcome", Text).until(Spec::V0_4),
                    may("outcome", OUTCOME).since(Spec::V0_5),
                    may("errors", Text),
                ],
            ),
        ],
    ),
    subject(
        "taskRun",
        &[
            event("started", RUN, &[may("taskName", Text), OLD_URL, NEW_URI, may("pipelineRun", REFERENCE)]),
            event(
                "finished",
                RUN,
                &[
                    may("taskName", Text),
                    OLD_URL,
                    NEW_URI,
                    may("pipelineRun", REFERENCE),
                    may("outcome", Text).until(Spec::V0_5),
                    may("outcome", OUTCOME).since(Spec::V0_6),
                    may("errors", Text),
                ],
            ),
        ],
    ),
    subject(
        "repository",
        &[
            event(
                "created",
                RUN,
                &[
                    must("name", Filled),
                    may("owner", Text),
                    must("url", Filled).until(Spec::V0_4),
                    must("uri", URI).since(Spec::V0_5),
                    OLD_VIEW,
                    NEW_VIEW,
                ],
            ),
            event("modified", RUN, A_REPOSITORY),
            event("deleted", RUN, A_REPOSITORY),
        ],
    ),
    subject("branch", &[event("created", CHANGE, IN_REPOSITORY), event("deleted", CHANGE, IN_REPOSITORY)]),
    subject(
        "change",
        &[
            event(
                "created",
                [Some("0.1.2"), Some("0.3.0"), Some("0.4.0"), Some("0.4.0")],
                &[may("description", Filled).since(Spec::V0_4), may("repository", REFERENCE)],
            ),
            event("updated", CHANGE, IN_REPOSITORY),
            event("reviewed", CHANGE, IN_REPOSITORY),
            event("merged", CHANGE, IN_REPOSITORY),
            event("abandoned", CHANGE, IN_REPOSITORY),
        ],
    ),
    subject(
        "build",
        &[
            event("queued", RUN, &[]),
            event("started", RUN, &[]),
            event("finished", RUN, &[may("artifactId", Kind::Artifact { filled: false })]),
        ],
    ),
    subject(
        "artifact",
        &[
            event("packaged", RUN, &[must("change", REFERENCE), may("sbom", SBOM).since(Spec::V0_4)]),
            event("signed", TEST, &[must("signature", Filled)]),
            event("published", RUN, &[may("sbom", SBOM).since(Spec::V0_4), may("user", Filled).since(Spec::V0_4)]),
            event("downloaded", FROM_0_4, &[may("user", Filled)]),
            event("deleted", FROM_0_4, &[may("user", Filled)]),
        ],
    ),
    subject(
        "environment",
        &[
            event("created", RUN, &[may("name", Text), OLD_URL, NEW_URI]),
            event("modified", RUN, &[may("name", Text), OLD_URL, NEW_URI]),
            event("deleted", RUN, &[may("name", Text)]),
        ],
    ),
    subject(
        "service",
        &[
            event("deployed", RUN, DEPLOYMENT),
            event("upgraded", RUN, DEPLOYMENT),
            event("rolledback", RUN, DEPLOYMENT),
            event("removed", RUN, IN_ENVIRONMENT),
            event("published", RUN, IN_ENVIRONMENT),
        ],
    ),
    subject(
        "incident",
        &[
            event("detected", TEST, AN_INCIDENT),
            event(
                "reported",
                TEST,
                &[
                    may("description", Text),
                    must("environment", REFERENCE),
                    must("ticketURI", FILLED_URI),
                    may("service", REFERENCE),
                    may("artifactId", ARTIFACT),
                ],
            ),
            event("resolved", TEST, AN_INCIDENT),
        ],
    ),
    test_subject(
        "testCaseRun",
        &[
            event("queued", TEST, A_WAITING_CASE),
            event("started", TEST, A_WAITING_CASE),
            event(
                "finished",
                TEST,
                &[
                    must("environment", REFERENCE),
                    must("outcome", TEST_OUTCOME).until(Spec::V0_4),
                    must("outcome", OUTCOME).since(Spec::V0_5),
                    may("severity", SEVERITY),
                    may("reason", Text),
                    may("testSuiteRun", LOOSE_REFERENCE),
                    may("testCase", TEST_CASE),
                ],
            ),
            event(
                "skipped",
                FROM_0_4,
                &[
                    may("reason", Text),
                    may("environment", REFERENCE),
                    may("testSuiteRun", LOOSE_REFERENCE),
                    may("testCase", TEST_CASE),
                ],
            ),
        ],
    ),
    test_subject(
        "testSuiteRun",
        &[
            event(
                "queued",
                TEST,
                &[may("trigger", TRIGGER), must("environment", REFERENCE), may("testSuite", QUEUED_TEST_SUITE)],
            ),
            event(
                "started",
                TEST,
                &[may("trigger", TRIGGER), must("environment", REFERENCE), may("testSuite", TEST_SUITE)],
            ),
            event(
                "finished",
                TEST,
                &[
                    must("environment", REFERENCE),
                    must("outcome", TEST_OUTCOME).until(Spec::V0_4),
                    must("outcome", OUTCOME).since(Spec::V0_5),
                    may("testSuite", TEST_SUITE),
                    may("severity", SEVERITY),
                    may("reason", Text),
                ],
            ),
        ],
    ),
    test_subject(
        "testOutput",
        &[event(
            "published",
            TEST,
            &[
                must("outputType", OneOf(&["report", "video", "image", "log", "other"])),
                must("format", Text),
                may("uri", URI),
                may("testCaseRun", LOOSE_REFERENCE),
            ],
        )],
    ),
    subject(
        "ticket",
        &[
            event(
                "created",
                FROM_0_4,
                &[
                    must("summary", Text),
                    must("creator", Filled),
                    must("uri", REFERENCE_URI),
                    may("ticketType", Text),
                    may("group", Text),
                    may("assignees", Texts),
                    may("priority", Text),
                    may("labels", Texts),
                    may("milestone", Text),
                ],
            ),
            event("updated", FROM_0_4, A_TICKET),
            event("closed", FROM_0_4, A_CLOSED_TICKET).keeping_type(),
        ],
    ),
    subject(
        "approval",
        &[
            event(
                "created",
                FROM_0_6,
                &[must("approvalDetailsUrl", Filled), must("resourceTargetUrl", Filled), must("requestor", FILLED_URI)],
            ),
            event(
                "updated",
                FROM_0_6,
                &[
                    must("approvalDetailsUrl", Filled),
                    must("resourceTargetUrl", Filled),
                    must("responder", URI),
                    must("decision", DECISION),
                ],
            ),
            event(
                "closed",
                FROM_0_6,
                &[
                    must("approvalDetailsUrl", Filled),
                    must("resourceTargetUrl", Filled),
                    must("responder", URI),
                    must("decision", DECISION),
                    must("status", OneOf(&["approved", "rejected", "cancelled", "expired"])),
                ],
            ),
        ],
    ),
];

const fn subject(name: &'static str, events: &'static [EventType]) -> Subject {
    Subject { name, sources: SOURCES, events }
}

const fn test_subject(name: &'static str, events: &'static [EventType]) -> Subject {
    Subject { name, sources: LOOSE_SOURCES, events }
}

const fn event(predicate: &'static str, versions: [Option<&'static str>; 4], content: &'static [Field]) -> EventType {
    EventType { predicate, versions, keeps_type: false, content }
}

const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true, since: Spec::V0_3, until: Spec::V0_6 }
}

const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false, since: Spec::V0_3, until: Spec::V0_6 }
}

impl Field {
    const fn since(mut self, spec: Spec) -> Self {
        self.since = spec;
        self
    }

    const fn until(mut self, spec: Spec) -> Self {
        self.until = spec;
        self
    }
}

impl EventType {
    const fn keeping_type(mut self) -> Self {
        self.keeps_type = true;
        self
    }
}
