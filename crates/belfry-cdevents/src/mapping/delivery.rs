//! The profile that deployment metrics are made from: what went live where, what was tried in vain, which incidents
//! that opened and closed. What failed in the cluster is a *failure*, what never reached it an *error*, what made way
//! for something newer a *cancel*.

use serde_json::json;

use super::{
    IncidentChange, Incidents, KustomizationAs, Skip, Told,
    document::{Draft, Outcome},
    story::Story,
};

const NOTHING: &str = "the profile has nothing for this reason";

pub(super) fn tell(story: &Story<'_>) -> Result<Told, Skip> {
    if story.reported.object.name.is_empty() {
        return Err("the event names no object".into());
    }
    match story.kind() {
        "HelmRelease" => helm_release(story),
        "Kustomization" => kustomization(story),
        kind => source(story, kind),
    }
}

fn helm_release(story: &Story<'_>) -> Result<Told, Skip> {
    let incidents = story.options.incidents;
    match story.reason() {
        "InstallSucceeded" => Ok(resolving(story, service(story, "deployed"))),
        "UpgradeSucceeded" => Ok(resolving(story, service(story, "upgraded"))),
        "RollbackSucceeded" => Ok(resolving(story, service(story, "rolledback"))),
        "UninstallSucceeded" => {
            let content = json!({"environment": story.environment_reference()});
            Ok(resolving(story, Draft::new("service", "removed", story.service.clone(), content)))
        }
        "InstallFailed" => Ok(failed(story, "helm-install", "install", incidents == Incidents::All)),
        "UpgradeFailed" => Ok(failed(story, "helm-upgrade", "upgrade", true)),
        "RollbackFailed" => Ok(failed(story, "helm-rollback", "rollback", false)),
        "UninstallFailed" => Ok(failed(story, "helm-uninstall", "uninstall", false)),
        "TestSucceeded" | "TestFailed" if story.has_no_tests() => Err("a test without test hooks says nothing".into()),
        "TestSucceeded" => Ok(tested(story, true)),
        "TestFailed" => Ok(tested(story, false)),
        "DriftCorrected" => Ok(story.environment_modified().into()),
        "DriftDetected" if story.options.drift => Ok(drift(story).into()),
        "HealthCheckCanceled" => Ok(run(story, "helm-reconcile", "reconcile", Outcome::Cancel).into()),
        _ => other_error(story, "helm-reconcile"),
    }
}

fn kustomization(story: &Story<'_>) -> Result<Told, Skip> {
    let all = story.options.incidents == Incidents::All;
    let apply = |outcome| run(story, "kustomize-apply", "apply", outcome);
    match story.reason() {
        "HealthCheckCanceled" => Ok(apply(Outcome::Cancel).into()),
        "HealthCheckFailed" if story.is_error() => Ok(failed(story, "kustomize-apply", "apply", true)),
        "ReconciliationFailed" | "PruneFailed" if story.is_error() => {
            Ok(failed(story, "kustomize-apply", "apply", all))
        }
        "BuildFailed" | "ArtifactFailed" | "DirectoryCreationFailed" | "InvalidCELExpression" | "AccessDenied"
            if story.is_error() =>
        {
            Ok(apply(Outcome::Error).into())
        }
        "ReconciliationSucceeded" if story.is_final_success() => applied(story),
        _ => other_error(story, "kustomize-apply"),
    }
}

/// A success comes with every interval; only a new revision is news.
fn applied(story: &Story<'_>) -> Result<Told, Skip> {
    let mut drafts = Vec::new();
    if !story.is_live_already() {
        match story.options.kustomization_as {
            KustomizationAs::None => {}
            KustomizationAs::Environment => drafts.push(story.environment_modified()),
            KustomizationAs::Service => {
                drafts.push(service(story, if story.facts.live.is_none() { "deployed" } else { "upgraded" }));
                drafts.push(story.environment_modified());
            }
        }
    }
    let incident = resolve(story, &mut drafts);
    if drafts.is_empty() {
        let reason = match story.options.kustomization_as {
            KustomizationAs::None if !story.is_live_already() => "Kustomizations are not told of",
            _ => "the periodic success of a revision that is live already",
        };
        return Err(reason.into());
    }
    Ok(Told { drafts, incident })
}

fn source(story: &Story<'_>, kind: &str) -> Result<Told, Skip> {
    let options = story.options;
    match (kind, story.reason()) {
        ("GitRepository", "NewArtifact") if options.assume_merged => merged(story),
        ("OCIRepository", "NewArtifact") | ("HelmChart", "ChartPullSucceeded") if options.sources => {
            Ok(Draft::new("artifact", "downloaded", story.artifact(), json!({})).into())
        }
        ("HelmChart", "ChartPackageSucceeded") if options.sources => packaged(story),
        _ => other_error(story, "reconcile"),
    }
}

fn other_error(story: &Story<'_>, task: &str) -> Result<Told, Skip> {
    match story.is_error() && story.options.sources {
        true => Ok(run(story, task, "reconcile", Outcome::Error).into()),
        false => Err(NOTHING.into()),
    }
}

fn service(story: &Story<'_>, predicate: &'static str) -> Draft {
    let content = json!({"environment": story.environment_reference(), "artifactId": story.artifact()});
    Draft::new("service", predicate, story.service.clone(), content)
}

fn run(story: &Story<'_>, task: &str, action: &str, outcome: Outcome) -> Draft {
    story.run_finished("taskrun", task, action, outcome)
}

/// A run that failed, and the incident that it opens unless one is open.
fn failed(story: &Story<'_>, task: &str, action: &str, is_incident: bool) -> Told {
    let mut drafts = vec![run(story, task, action, Outcome::Failure)];
    let opens = is_incident && story.facts.incident.is_none();
    let incident = opens.then(|| {
        let id = story.new_incident();
        drafts.push(story.incident("detected", id.clone(), story.message()));
        IncidentChange::Opened(id)
    });
    Told { drafts, incident }
}

/// A success, and the end of the incident that was open.
fn resolving(story: &Story<'_>, draft: Draft) -> Told {
    let mut drafts = vec![draft];
    let incident = resolve(story, &mut drafts);
    Told { drafts, incident }
}

fn resolve(story: &Story<'_>, drafts: &mut Vec<Draft>) -> Option<IncidentChange> {
    let id = story.facts.incident?;
    drafts.push(story.incident("resolved", id.to_owned(), story.message()));
    Some(IncidentChange::Closed)
}

fn tested(story: &Story<'_>, passed: bool) -> Told {
    let outcome = |passed| if passed { Outcome::Success } else { Outcome::Failure };
    let release = &story.reported.object.name;
    let mut content = json!({
        "environment": story.environment_reference(),
        "testSuite": {"id": story.name(), "name": format!("helm test {release}")},
    });
    if let Some(revision) = story.revision {
        content["testSuite"]["version"] = revision.into();
    }
    if !passed {
        content["reason"] = story.message().into();
    }
    let suite = story.run("test");
    let mut drafts = vec![Draft::new("testsuiterun", "finished", suite.clone(), content).with_outcome(outcome(passed))];
    let cases = story.facts.tests.iter().filter(|case| story.options.test_cases && !case.name.is_empty());
    drafts.extend(cases.map(|case| {
        let content = json!({
            "environment": story.environment_reference(),
            "testSuiteRun": {"id": suite},
            "testCase": {"id": format!("{}/{}", story.name(), case.name), "name": case.name},
        });
        Draft::new("testcaserun", "finished", format!("{suite}/{}", case.name), content)
            .with_outcome(outcome(case.passed))
            .of_part(case.name)
    }));
    Told { drafts, incident: None }
}

fn drift(story: &Story<'_>) -> Draft {
    let content = json!({
        "environment": story.environment_reference(),
        "service": {"id": story.service},
        "description": story.message(),
    });
    Draft::custom("dev.cdeventsx.flux-drift.detected.0.1.0", story.service.clone(), content)
}

fn merged(story: &Story<'_>) -> Result<Told, Skip> {
    let Some((repository, sha)) = story.commit() else { return Err("the event names no commit".into()) };
    let content = match repository {
        Some(repository) => json!({"repository": {"id": repository.path, "source": repository.root()}}),
        None => json!({}),
    };
    Ok(Draft::new("change", "merged", sha.to_owned(), content).into())
}

fn packaged(story: &Story<'_>) -> Result<Told, Skip> {
    let Some((repository, sha)) = story.commit() else { return Err("the commit of the chart isn't known".into()) };
    let mut change = json!({"id": sha});
    if let Some(repository) = repository {
        change["source"] = repository.url().into();
    }
    Ok(Draft::new("artifact", "packaged", story.artifact(), json!({"change": change})).into())
}
