//! One Flux event with everything that is known about it, in the words that CDEvents are made of.

use belfry_core::{
    event::{ANNOTATION_PREFIX, controller_value, updates_commit_status},
    plan::{Change, Origin},
    revision::{self, Revision},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    Commit, Facts, Options, Reported,
    document::{Draft, Outcome},
    identity,
    purl::{self, Deployed, Repository},
};
use crate::bounds;

/// The event and what the profiles ask about it.
pub(super) struct Story<'a> {
    pub reported: Reported<'a>,
    pub facts: Facts<'a>,
    pub options: &'a Options,
    /// Name of the object's cluster.
    pub cluster: &'a str,
    /// The revision that the controller named.
    pub revision: Option<&'a str>,
    /// Id of the environment.
    pub environment: String,
    /// The object as a service.
    pub service: String,
    /// When it happened: RFC 3339 in whole seconds.
    pub time: String,
}

impl<'a> Story<'a> {
    pub fn new(reported: &Reported<'a>, facts: &Facts<'a>, options: &'a Options) -> Self {
        let object = reported.object;
        let named = [object.cluster.as_str(), options.cluster.as_str(), "local"];
        let cluster = named.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        let filled = |text: &&str| !text.is_empty();
        let environment = said(reported, "environment").or(options.environment.as_deref()).filter(filled);
        Self {
            reported: *reported,
            facts: *facts,
            options,
            cluster,
            revision: controller_value(reported.event, reported.origin, "revision").filter(filled),
            environment: environment.map_or_else(|| format!("/{cluster}"), str::to_owned),
            service: format!("/{cluster}/{}/{}/{}", object.namespace, object.kind.to_lowercase(), object.name),
            time: seconds(reported.event.timestamp.unwrap_or(reported.arrived)),
        }
    }

    pub fn kind(&self) -> &'a str {
        &self.reported.object.kind
    }

    pub fn reason(&self) -> &'a str {
        &self.reported.event.reason
    }

    pub fn is_error(&self) -> bool {
        self.reported.event.severity == "error"
    }

    pub fn recovers(&self) -> bool {
        self.reported.change == Some(Change::Recovered) || self.facts.incident.is_some()
    }

    /// Whether this is the success of a Kustomization, and not a notice that happens to have its reason.
    pub fn is_final_success(&self) -> bool {
        !self.is_error()
            && (self.kind() != "Kustomization" || updates_commit_status(self.reported.event, self.reported.origin))
    }

    /// Whether the object went live with this revision before: then this is one of its periodic successes.
    pub fn is_live_already(&self) -> bool {
        match (self.revision, self.facts.live) {
            (Some(revision), Some(live)) => revision::same(revision, live),
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    /// Whether tests passed because there are none.
    pub fn has_no_tests(&self) -> bool {
        self.reported.event.message.trim_end().ends_with("no test hooks")
    }

    /// The message, cut where it is too long for a field; only the reason when messages are left out.
    pub fn message(&self) -> String {
        match self.options.omit_messages {
            true => self.reason().to_owned(),
            false => cut(&self.reported.event.message, bounds::MESSAGE),
        }
    }

    /// What the object deploys in this revision.
    pub fn artifact(&self) -> String {
        let object = self.reported.object;
        let is_chart = matches!(object.kind.as_str(), "HelmRelease" | "HelmChart");
        let chart = self.reported.event.message.split_once(" with chart ").and_then(|(_, rest)| rest.split_once('@'));
        let chart = chart.map(|(name, _)| name).filter(|name| is_chart && !name.is_empty() && !name.contains(' '));
        let deployed = Deployed {
            revision: self.revision.unwrap_or_default(),
            is_chart,
            digest: controller_value(self.reported.event, self.reported.origin, "oci-digest"),
            name: chart.unwrap_or(&object.name),
        };
        purl::artifact(deployed, self.facts.source)
    }

    /// The commit that this is about, and its repository as far as that is known.
    pub fn commit(&self) -> Option<(Option<Repository>, &'a str)> {
        if let Some(Commit { repository, sha }) = self.facts.commit.filter(|commit| !commit.sha.is_empty()) {
            return Some((repository.and_then(Repository::parse), sha));
        }
        let from_git = self.facts.source.filter(|source| source.kind == "GitRepository");
        let url = from_git.map(|source| source.url).or(self.facts.source.and_then(|source| source.repository));
        let repository = url.and_then(Repository::parse);
        let named = ["commit", "originRevision"].into_iter().filter_map(|key| said(&self.reported, key));
        if let Some(sha) = named.filter_map(|text| Revision::parse(text).whole_hash()).next() {
            return Some((repository, sha));
        }
        let revision = Revision::parse(self.revision?);
        // The hash of what isn't from Git is that of an artifact.
        let is_commit = from_git.is_some() || (self.facts.source.is_none() && revision.algorithm == Some("sha1"));
        revision.whole_hash().filter(|_| is_commit).map(|sha| (repository, sha))
    }

    /// The chain: one for a commit, over objects and clusters; else one for the artifact.
    pub fn chain(&self) -> String {
        if let Some(chain) = self.facts.chain.filter(|chain| !chain.is_empty()) {
            return chain.to_owned();
        }
        identity::chain(&match self.commit() {
            Some((Some(repository), sha)) => format!("{}@{sha}", repository.url()),
            Some((None, sha)) => format!("@{sha}"),
            None => self.artifact(),
        })
    }

    /// What tells this object from any other: its UID, or its name where it came without.
    pub fn uid(&self) -> String {
        let object = &self.reported.event.involved_object;
        if object.uid.is_empty() { self.service.clone() } else { object.uid.clone() }
    }

    /// Id of an incident that begins now.
    pub fn new_incident(&self) -> String {
        identity::incident(&self.uid(), &self.time)
    }

    pub fn environment_reference(&self) -> Value {
        json!({"id": self.environment})
    }

    /// `environment.modified`.
    pub fn environment_modified(&self) -> Draft {
        let name = self.environment.trim_matches('/').replace('/', " ");
        Draft::new("environment", "modified", self.environment.clone(), json!({"name": name}))
    }

    /// An incident that begins or ends.
    pub fn incident(&self, predicate: &'static str, id: String, description: String) -> Draft {
        let content = json!({
            "description": description,
            "environment": self.environment_reference(),
            "service": {"id": self.service},
            "artifactId": self.artifact(),
        });
        Draft::new("incident", predicate, id, content)
    }

    /// A task or pipeline run that finished; its name and its id have the action in them.
    pub fn run_finished(&self, subject: &'static str, name: &str, action: &str, outcome: Outcome) -> Draft {
        let name_field = if subject == "pipelinerun" { "pipelineName" } else { "taskName" };
        let mut content = Map::from_iter([(name_field.to_owned(), name.into())]);
        if outcome != Outcome::Success {
            content.insert("errors".into(), self.message().into());
        }
        Draft::new(subject, "finished", self.run(action), content.into()).with_outcome(outcome)
    }

    /// Id of a run: the object, what was done, and with which revision.
    pub fn run(&self, action: &str) -> String {
        match self.revision {
            Some(revision) => format!("{}/{action}/{revision}", self.service),
            None => format!("{}/{action}", self.service),
        }
    }

    /// `<namespace>/<name>` of the object.
    pub fn name(&self) -> String {
        format!("{}/{}", self.reported.object.namespace, self.reported.object.name)
    }
}

/// What metadata say under a key: the controller's word, else that of the object's annotations.
fn said<'a>(reported: &Reported<'a>, key: &str) -> Option<&'a str> {
    let Reported { event, origin, .. } = *reported;
    controller_value(event, origin, key).or_else(|| match origin {
        Origin::Recorder => event.metadata.get(&format!("{ANNOTATION_PREFIX}{key}")).map(String::as_str),
        Origin::Forwarded | Origin::Observed => None,
    })
}

fn seconds(at: Timestamp) -> String {
    belfry_core::go_json::seconds(at)
}

/// The text, or its beginning with an ellipsis.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most.saturating_sub(3)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &text[..end])
}
