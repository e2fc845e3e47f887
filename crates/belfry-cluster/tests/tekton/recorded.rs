//! Runs that the real Tekton made, each as it was before a controller had looked at it.

use std::fs;

use belfry_core::rollout::Phase;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{
    harness::{OURS, Runs, result, scene},
    support::{root, shared},
};

/// Runs as Tekton makes them, but for the group of the task.
fn recorded(file: &str) -> Option<Vec<Value>> {
    let Ok(yaml) = fs::read_to_string(shared("tekton").join(file)) else {
        testkit::skip("Tekton's recorded runs are not beside the project");
        return None;
    };
    let read: Value = serde_saphyr::from_str(&yaml.replace("flux-event-store.dev/v1alpha1", OURS)).unwrap();
    let runs = read["items"].as_array().cloned().unwrap_or_else(|| vec![read]);
    let made = |mut run: Value| {
        let metadata = run["metadata"].take();
        run["metadata"] = json!({
            "name": metadata["name"], "labels": metadata["labels"], "ownerReferences": metadata["ownerReferences"],
        });
        run.as_object_mut().unwrap().remove("status");
        run
    };
    Some(runs.into_iter().map(made).collect())
}

async fn create(runs: &Runs<'_>, run: Value) -> String {
    let run = serde_json::from_value(run).unwrap();
    let made = runs.api("CustomRun").create(&PostParams::default(), &run).await.unwrap();
    made.metadata.name.unwrap()
}

#[tokio::test]
async fn each_is_understood() {
    let Some((runs, world, _belfry)) = scene("recorded").await else { return };
    for (file, count, status, reason) in [
        ("t1-1-created-customrun.yaml", 1, "Unknown", "Waiting"),
        ("t4-2-cancelled-customrun-before-controller.yaml", 1, "False", "CustomRunCancelled"),
        ("t7-tasktimeout-customrun.yaml", 1, "False", "CustomRunTimedOut"),
        ("t8-tasks-timeout-customrun.yaml", 1, "False", "CustomRunCancelled"),
        ("t9-pipeline-timeout-customrun.yaml", 1, "False", "CustomRunCancelled"),
        // Its variable was left as it was written, for there is no such param.
        ("t11-customspec-customrun.yaml", 1, "False", "InvalidParams"),
        ("t12-standalone-customrun.yaml", 1, "Unknown", "Waiting"),
        ("t13-matrix-customruns.yaml", 2, "Unknown", "Waiting"),
    ] {
        let Some(all) = recorded(file) else { return };
        assert_eq!(all.len(), count, "{file}");
        for run in all {
            let name = create(&runs, run).await;
            runs.custom(&name, status, reason).await;
        }
    }
    let asked = world.asked();
    let first = asked.iter().find(|question| question.objects.len() == 2).unwrap();
    assert_eq!(first.revision, "main@sha1:985f8f08fad492ca9166cd880b7938e0d7aab4e9");
    let names: Vec<_> = first.objects.iter().map(|object| object.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["app", "infra"]);
}

/// The example asks what can be asked, and uses results that there are.
#[tokio::test]
async fn the_example_is_understood() {
    let Some((runs, world, _belfry)) = scene("example").await else { return };
    let file = root().join("examples/tekton/pipeline.yaml");
    let text = fs::read_to_string(file).unwrap().replace("$(tasks.build.results.commit)", "abcdef0");
    let pipeline: Value = serde_saphyr::from_str(&text).unwrap();
    let tasks = pipeline["spec"]["tasks"].as_array().unwrap();
    let task = tasks.iter().find(|task| task["taskRef"]["kind"] == "FluxDeploymentWait").unwrap();
    let run = json!({
        "apiVersion": "tekton.dev/v1beta1", "kind": "CustomRun", "metadata": { "name": "example" },
        "spec": {
            "customRef": task["taskRef"], "params": task["params"], "retries": task["retries"], "timeout": task["timeout"],
        },
    });
    create(&runs, run).await;
    runs.custom("example", "Unknown", "Waiting").await;
    for object in ["shop", "shop-config"] {
        let object = format!("Kustomization/flux-system/{object}");
        world.happens("abcdef0", &object, Phase::Succeeded, "ReconciliationSucceeded");
    }
    let done = runs.custom("example", "True", "ReconciliationSucceeded").await;
    let used: Vec<_> =
        text.split("$(tasks.deployed.results.").skip(1).map(|rest| rest.split_once(')').unwrap().0).collect();
    assert_eq!(used, ["revision", "revision", "duration"]);
    used.into_iter().for_each(|name| assert!(!result(&done, name).is_empty()));
    let documented = fs::read_to_string(root().join("docs/tekton.md")).unwrap();
    for result in done["status"]["results"].as_array().unwrap() {
        let name = result["name"].as_str().unwrap();
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in the docs");
    }
}
