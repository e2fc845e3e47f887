//! The profiles after the Flux RFC: its table, and its two alternatives.

use serde_json::json;

use super::{
    IncidentChange, Profile, Skip, Told,
    document::{Draft, Outcome},
    story::Story,
};

/// What a reason says was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Install,
    Upgrade,
    Test,
    Rollback,
    Uninstall,
    Reconciliation,
}

impl Action {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Install, "install"),
        (Self::Upgrade, "upgrade"),
        (Self::Test, "test"),
        (Self::Rollback, "rollback"),
        (Self::Uninstall, "uninstall"),
        (Self::Reconciliation, "reconciliation"),
    ];

    fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// `InstallSucceeded`, `UpgradeFailed`, …
    fn of_reason(reason: &str) -> Option<(Self, bool)> {
        let (word, succeeded) = match (reason.strip_suffix("Succeeded"), reason.strip_suffix("Failed")) {
            (Some(word), _) => (word, true),
            (_, word) => (word?, false),
        };
        let (action, _) = Self::ALL.into_iter().find(|(_, known)| known.eq_ignore_ascii_case(word))?;
        Some((action, succeeded))
    }
}

pub(super) fn tell(story: &Story<'_>) -> Result<Told, Skip> {
    let (action, succeeded) = action(story)?;
    match (action, succeeded) {
        (Action::Test, _) if story.has_no_tests() => Err("a test without test hooks says nothing".into()),
        (Action::Test, _) => Ok(test_finished(story, succeeded).into()),
        (Action::Upgrade, true) => Ok(closing(story, finished(story, action, succeeded))),
        (Action::Upgrade | Action::Rollback, _) => Ok(finished(story, action, succeeded).into()),
        (Action::Install, true) if story.options.profile == Profile::Rfc => {
            Ok(closing(story, story.environment_modified()))
        }
        (Action::Install, true) => Ok(closing(story, finished(story, action, succeeded))),
        (Action::Install, false) if story.options.profile != Profile::Rfc => {
            Ok(finished(story, action, succeeded).into())
        }
        // An uninstall is also what follows a failed install, and ends no failure.
        (Action::Uninstall, true) => Ok(story.environment_modified().into()),
        (Action::Reconciliation, true) if !story.is_final_success() => {
            Err("a notice that isn't the final success".into())
        }
        (Action::Reconciliation, true) if story.is_live_already() && !story.recovers() => {
            Err("the periodic success of a revision that is live already".into())
        }
        (Action::Reconciliation, true) => Ok(closing(story, story.environment_modified())),
        (Action::Install | Action::Uninstall | Action::Reconciliation, false) => detected(story),
    }
}

/// A Kustomization names what failed in the reason, and only a failure of a revision is told of.
fn action(story: &Story<'_>) -> Result<(Action, bool), Skip> {
    if story.reported.object.name.is_empty() {
        return Err("the event names no object".into());
    }
    let named = Action::of_reason(story.reason());
    if story.kind() == "Kustomization" && story.is_error() {
        return match story.revision {
            Some(_) => Ok((Action::Reconciliation, false)),
            None => Err("an error that names no revision".into()),
        };
    }
    // A Kustomization that is deleted reports with the last reason it had.
    named
        .filter(|(_, succeeded)| *succeeded != story.is_error())
        .ok_or_else(|| "the profile has nothing for this reason".into())
}

/// An incident is told of once, until a success ends it.
fn detected(story: &Story<'_>) -> Result<Told, Skip> {
    if story.facts.incident.is_some() {
        return Err("the incident is known already".into());
    }
    let id = story.new_incident();
    let draft = story.incident("detected", id.clone(), story.message());
    Ok(Told { drafts: vec![draft], incident: Some(IncidentChange::Opened(id)) })
}

/// The RFC knows no end of incidents: that a success ended one is only remembered.
fn closing(story: &Story<'_>, draft: Draft) -> Told {
    Told { drafts: vec![draft], incident: story.facts.incident.map(|_| IncidentChange::Closed) }
}

fn finished(story: &Story<'_>, action: Action, succeeded: bool) -> Draft {
    let outcome = if succeeded { Outcome::Success } else { Outcome::Failure };
    let name = format!("helm-{}", action.word());
    match story.options.profile {
        Profile::Pipeline => story.run_finished("pipelinerun", &name, action.word(), outcome),
        Profile::Build => {
            let content = json!({"artifactId": story.artifact()});
            Draft::new("build", "finished", story.run(action.word()), content).with_outcome(outcome)
        }
        _ => story.run_finished("taskrun", &name, action.word(), outcome),
    }
}

fn test_finished(story: &Story<'_>, succeeded: bool) -> Draft {
    let mut content = json!({
        "environment": story.environment_reference(),
        "testCase": {"id": story.name(), "name": format!("helm test {}", story.reported.object.name)},
    });
    if let Some(revision) = story.revision {
        content["testCase"]["version"] = revision.into();
    }
    if !succeeded {
        content["reason"] = story.message().into();
    }
    let outcome = if succeeded { Outcome::Success } else { Outcome::Failure };
    Draft::new("testcaserun", "finished", story.run("test"), content).with_outcome(outcome)
}
