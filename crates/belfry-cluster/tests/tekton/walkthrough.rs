//! The older event store's walk-through: a run waits for revision `a`, which fails, another for `b`, which succeeds.

use belfry_core::rollout::Phase;
use serde_json::json;

use crate::harness::{OLDER, OURS, result, scene};

#[tokio::test]
async fn one_revision_fails_and_another_succeeds() {
    let Some((runs, world, _belfry)) = scene("walk").await else { return };
    for (kind, version) in [("CustomRun", OLDER), ("CustomRun", OURS), ("Run", OLDER), ("Run", OURS)] {
        let short = format!("{}-{}", kind.to_lowercase(), if version == OURS { "ours" } else { "older" });
        let reference = json!({ "apiVersion": version, "kind": "FluxDeploymentWait" });
        for (revision, state, reason, status, ending) in [
            ("a", Phase::Failed, "BuildFailed", "False", "ReconciliationFailed"),
            ("b", Phase::Succeeded, "ReconciliationSucceeded", "True", "ReconciliationSucceeded"),
        ] {
            let (name, revision) = (format!("{short}-{revision}"), format!("{short}-{revision}"));
            runs.create_as(kind, &name, reference.clone(), json!({ "revision": revision }), json!({})).await;
            let waiting = runs.until(kind, &name, "Unknown", "Waiting").await;
            assert!(waiting["status"]["startTime"].is_string(), "{waiting}");

            world.happens(&revision, "", state, reason);
            let done = runs.until(kind, &name, status, ending).await;
            assert!(done["status"]["completionTime"].is_string(), "{done}");
            assert_eq!((result(&done, "revision"), result(&done, "reason")), (&*revision, reason));
            let told: Vec<_> = runs.told(&name, ending).await;
            let reasons: Vec<_> = told.iter().map(|event| event["reason"].as_str().unwrap()).collect();
            assert_eq!(reasons, ["Waiting", ending], "{told:?}");
            assert_eq!(told[0]["involvedObject"]["uid"], done["metadata"]["uid"]);
        }
    }
}
