//! What replicas on one PostgreSQL append, beside one replica alone.

use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{
    Bed, Scale,
    report::{Report, Target},
};

/// Of what one replica appends, how much four must at least come to.
const SHARE: f64 = 0.7;

/// Measures all rounds at once, on a server of their own.
///
/// # Errors
/// When the example can't be built or run.
pub fn rounds(bed: &Bed, scale: &Scale, rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    const APPEND: &str = "Appends to PostgreSQL: 64 producers in all, 1 delivery each";
    bed.say("postgres")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let example =
        ["run", "--release", "--quiet", "--package", "belfry-store", "--example", "replicas", "--manifest-path"];
    let output = Command::new(cargo)
        .args(example)
        .arg(crate::root().join("Cargo.toml"))
        .arg("--")
        .args([scale.events.to_string(), rounds.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("the example `replicas` failed");
    }
    let mut rates = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let run: Value = serde_json::from_str(line).with_context(|| format!("no figure: {line}"))?;
        let (Some(replicas), Some(rate)) = (run["replicas"].as_u64(), run["rate"].as_f64()) else {
            bail!("no figure: {line}");
        };
        rates.push((replicas, rate));
    }
    for round in rates.chunks(3) {
        let of = |wanted| round.iter().find(|(replicas, _)| *replicas == wanted).map_or(f64::NAN, |(_, rate)| *rate);
        report.add(APPEND, "1 replica", "events/s", of(1), Target::Least(15_000.0));
        report.add(APPEND, "2 replicas", "events/s", of(2), None);
        report.add(APPEND, "4 replicas", "events/s", of(4), None);
        report.add(APPEND, "4 replicas, of 1", "×", of(4) / of(1), Target::Least(SHARE));
    }
    Ok(())
}
