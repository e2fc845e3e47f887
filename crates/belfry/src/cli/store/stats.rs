//! `belfry store stats`.

use std::io::Write as _;

use belfry_core::{ConfigKey, ConfigKind, Time};
use belfry_store::{
    DeliveryState,
    transfer::{self, Survey},
};
use clap::Args;
use serde_json::{Value, json};

use super::{progress::grouped, site::SiteFlags};
use crate::cli::{
    output::{Output, print_table},
    wait::text::{escaped, json as pretty, tame},
};

const STATES: [DeliveryState; 4] =
    [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::Superseded, DeliveryState::Dead];

/// Show what is in a store.
#[derive(Debug, Args)]
pub(super) struct Stats {
    #[command(flatten)]
    site: SiteFlags,
    /// Form of the output
    #[arg(short, long, default_value = "table")]
    output: Output,
}

impl Stats {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let survey = transfer::survey(&self.site.site())?;
        let mut out = std::io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", pretty(&value(&survey)))?,
            Output::Ndjson => writeln!(out, "{}", escaped(&value(&survey).to_string()))?,
            Output::Table => {
                let header = ["WHAT".to_owned(), "HOW MUCH".to_owned()];
                print_table(&mut out, header, lines(&survey).into_iter())?;
                if !survey.waiting.is_empty() {
                    writeln!(out)?;
                    let rows = survey.waiting.iter();
                    let rows = rows.map(|row| [provider(&row.dest), grouped(row.count), row.oldest.to_string()]);
                    print_table(&mut out, ["PROVIDER", "WAITING", "OLDEST"].map(str::to_owned), rows)?;
                }
            }
        }
        Ok(())
    }
}

/// The destination as the other commands name it.
fn provider(dest: &ConfigKey) -> String {
    match dest.kind {
        ConfigKind::Cluster => "the cluster (triggers)".into(),
        _ => tame(&format!("{}/{}", dest.namespace, dest.name)),
    }
}

fn lines(survey: &Survey) -> Vec<[String; 2]> {
    let span = survey.span.map(|(first, last)| format!(", {} to {}", first.time(), last.time())).unwrap_or_default();
    let open = format!("{}, {} of them open", grouped(survey.rollouts), grouped(survey.open_rollouts));
    let mut lines = vec![
        ("engine", format!("{}, schema {}", survey.engine, survey.schema)),
        ("events", grouped(survey.events) + &span),
        ("objects", grouped(survey.objects)),
        ("rollouts", open),
    ];
    let states = STATES.map(|state| (state.as_str(), grouped(survey.in_state(state))));
    lines.extend(states.iter().map(|(state, count)| (*state, format!("{count} deliveries"))));
    lines.extend([("attempts", grouped(survey.attempts)), ("webhooks", grouped(survey.hooks))]);
    lines.push(("bytes used", grouped(survey.used)));
    lines.extend(survey.free.map(|free| ("bytes free", grouped(free))));
    lines.extend(survey.replicas.map(|replicas| ("replicas", format!("{replicas} heard of lately"))));
    lines.into_iter().map(|(what, much)| [what.to_owned(), much]).collect()
}

fn value(survey: &Survey) -> Value {
    let time = |time: Time| Value::String(time.to_string());
    let deliveries: serde_json::Map<String, Value> =
        STATES.map(|state| (state.as_str().to_owned(), survey.in_state(state).into())).into_iter().collect();
    let waiting = survey.waiting.iter().map(|row| {
        let dest = match row.dest.kind {
            ConfigKind::Cluster => json!({"cluster": true}),
            _ => json!({"provider": format!("{}/{}", row.dest.namespace, row.dest.name)}),
        };
        let mut row = json!({"count": row.count, "oldest": time(row.oldest)});
        if let (Some(row), Value::Object(dest)) = (row.as_object_mut(), dest) {
            row.extend(dest);
        }
        row
    });
    json!({
        "engine": survey.engine,
        "schema": survey.schema,
        "events": {
            "count": survey.events,
            "first": survey.span.map(|(first, _)| time(first.time())),
            "last": survey.span.map(|(_, last)| time(last.time())),
        },
        "objects": survey.objects,
        "rollouts": {"count": survey.rollouts, "open": survey.open_rollouts},
        "deliveries": deliveries,
        "attempts": survey.attempts,
        "backlog": waiting.collect::<Vec<_>>(),
        "webhooks": survey.hooks,
        "bytes": {"used": survey.used, "free": survey.free},
        "replicas": survey.replicas,
    })
}

#[cfg(test)]
mod tests {
    use belfry_core::Seq;
    use belfry_store::transfer::Waiting;

    use super::*;

    #[test]
    fn what_is_in_a_store_at_a_glance() {
        let mut survey = Survey {
            engine: "sqlite",
            schema: 2,
            used: 139_264,
            free: Some(0),
            events: 1234,
            span: Some((Seq(1_800_000_000_000_000), Seq(1_800_000_005_000_000))),
            objects: 5,
            rollouts: 3,
            open_rollouts: 1,
            deliveries: vec![(DeliveryState::Pending, 61), (DeliveryState::Dead, 30)],
            attempts: 60,
            waiting: vec![
                Waiting { dest: ConfigKey::provider("apps", "slow"), count: 60, oldest: Time(1_800_000_000_000_000) },
                Waiting { dest: ConfigKey::cluster(), count: 1, oldest: Time(1_800_000_005_000_000) },
            ],
            hooks: 3,
            replicas: None,
        };
        let shown: Vec<String> = lines(&survey).into_iter().map(|line| line.join(": ")).collect();
        insta::assert_snapshot!(shown.join("\n"), @r"
        engine: sqlite, schema 2
        events: 1,234, 2027-01-15T08:00:00.000Z to 2027-01-15T08:00:05.000Z
        objects: 5
        rollouts: 3, 1 of them open
        pending: 61 deliveries
        delivered: 0 deliveries
        superseded: 0 deliveries
        dead: 30 deliveries
        attempts: 60
        webhooks: 3
        bytes used: 139,264
        bytes free: 0
        ");
        insta::assert_snapshot!(pretty(&value(&survey)), @r#"
        {
          "attempts": 60,
          "backlog": [
            {
              "count": 60,
              "oldest": "2027-01-15T08:00:00.000Z",
              "provider": "apps/slow"
            },
            {
              "cluster": true,
              "count": 1,
              "oldest": "2027-01-15T08:00:05.000Z"
            }
          ],
          "bytes": {
            "free": 0,
            "used": 139264
          },
          "deliveries": {
            "dead": 30,
            "delivered": 0,
            "pending": 61,
            "superseded": 0
          },
          "engine": "sqlite",
          "events": {
            "count": 1234,
            "first": "2027-01-15T08:00:00.000Z",
            "last": "2027-01-15T08:00:05.000Z"
          },
          "objects": 5,
          "replicas": null,
          "rollouts": {
            "count": 3,
            "open": 1
          },
          "schema": 2,
          "webhooks": 3
        }
        "#);
        assert_eq!(
            survey.waiting.iter().map(|row| provider(&row.dest)).collect::<Vec<_>>(),
            ["apps/slow", "the cluster (triggers)"]
        );
        (survey.engine, survey.free, survey.replicas) = ("postgres", None, Some(2));
        let shown = lines(&survey);
        assert_eq!(shown.last().map(|line| line.join(": ")).as_deref(), Some("replicas: 2 heard of lately"));
        assert!(!shown.iter().any(|line| line[0] == "bytes free"));
    }
}
