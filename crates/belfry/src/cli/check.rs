//! `belfry check` and `belfry crds`: what needs neither a server nor a cluster.

use std::{io::Write as _, path::PathBuf};

use anyhow::{Context as _, bail};
use belfry_core::config::{self, Finding, Options, Problem, Snapshot};
use clap::Args;

use super::flags::FeatureGates;
use crate::{
    access,
    manifests::{self, Loaded},
};

/// Validate manifests, offline.
#[derive(Debug, Args)]
pub struct Check {
    /// Directories, or single files, of manifests
    #[arg(required_unless_present = "api_access", value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// The file of this flag of `belfry serve`, and the files that it names
    #[arg(long, value_name = "FILE")]
    api_access: Option<PathBuf>,
    /// Judge as with this flag of `belfry serve`
    #[arg(long)]
    no_cross_namespace_refs: bool,
    /// Judge as with these features, such as AlertCommitStatus=false; a list with commas
    #[arg(long, value_name = "GATES", default_value = "")]
    feature_gates: FeatureGates,
    /// The namespace that Belfry runs in
    #[arg(long, env = "RUNTIME_NAMESPACE", default_value = "flux-system")]
    runtime_namespace: String,
}

impl Check {
    /// Prints a line for each problem. Exit code 1 when something would not be in force, else 0.
    pub fn run(self) -> anyhow::Result<u8> {
        if let Some(missing) = self.paths.iter().find(|path| !path.exists()) {
            bail!("{} doesn't exist", missing.display());
        }
        let loaded = manifests::load(&self.paths, &Loaded::default());
        let options = Options {
            no_cross_namespace_refs: self.no_cross_namespace_refs,
            runtime_namespace: self.runtime_namespace,
            no_alert_commit_status: !self.feature_gates.is_on(FeatureGates::ALERT_COMMIT_STATUS),
            ..Options::default()
        };
        let (snapshot, findings) = config::compile(&loaded.documents, &Snapshot::default(), &options);
        let mut out = std::io::stdout().lock();
        let mut refused = 0;
        let mut remarks = 0;
        for problem in &loaded.problems {
            refused += 1;
            writeln!(out, "error: {problem} [Unreadable]")?;
        }
        if let Some(file) = &self.api_access
            && let Err(why) = access::check(file)
        {
            refused += 1;
            writeln!(out, "error: {}: {why} [InvalidAccess]", file.display())?;
        }
        let secrets = [missing_secrets(&loaded, &snapshot), receiver_secrets(&loaded, &snapshot)].concat();
        for finding in findings.iter().chain(&secrets) {
            let Some(problem) = &finding.problem else { continue };
            let word = if problem.refused { "error" } else { "warning" };
            *(if problem.refused { &mut refused } else { &mut remarks }) += 1;
            writeln!(out, "{word}: {finding} [{}]", problem.reason)?;
        }
        writeln!(
            out,
            "{}, {}, {} and {} in force, {}, {}, {}",
            count(snapshot.providers().count(), "Provider"),
            count(snapshot.alerts().count(), "Alert"),
            count(snapshot.commit_statuses().count(), "CommitStatus"),
            count(snapshot.receivers().filter(|rule| rule.flaw.is_none()).count(), "Receiver"),
            count(loaded.secrets.len(), "Secret"),
            count(refused, "error"),
            count(remarks, "warning"),
        )?;
        Ok(u8::from(refused > 0))
    }
}

/// `1 Alert`, `2 Alerts`, `0 CommitStatuses`.
fn count(number: usize, what: &str) -> String {
    let ending = match number {
        1 => "",
        _ if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {what}{ending}")
}

/// What is wrong with the Secrets of Receivers; one that no manifest holds may come from elsewhere.
fn receiver_secrets(loaded: &Loaded, snapshot: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in snapshot.receivers().filter(|rule| rule.flaw.is_none()) {
        let Some(reference) = &rule.spec.secret_ref else { continue };
        let key = (rule.key.namespace.to_string(), reference.name.clone());
        let problem = match loaded.secrets.get(&key) {
            Some(secret) => belfry_receive::check_secret(&rule.spec, &rule.key.namespace, Some(secret)),
            None => Some(Problem {
                field: "spec.secretRef".into(),
                reason: "SecretNotFound",
                message: format!(
                    "no manifest holds the Secret {}/{}; until there is one it takes nothing",
                    key.0, key.1
                ),
                refused: false,
            }),
        };
        found.extend(problem.map(|problem| Finding {
            object: Some((*rule.key).clone()),
            origin: String::new(),
            problem: Some(problem),
        }));
    }
    found
}

/// Secrets that a Provider names and no manifest holds: fine where they come from elsewhere, so only a remark.
fn missing_secrets(loaded: &Loaded, snapshot: &Snapshot) -> Vec<Finding> {
    let mut missing = Vec::new();
    for provider in snapshot.providers() {
        let spec = &provider.spec;
        for (field, reference) in [
            ("spec.secretRef", &spec.secret_ref),
            ("spec.proxySecretRef", &spec.proxy_secret_ref),
            ("spec.certSecretRef", &spec.cert_secret_ref),
        ] {
            let Some(reference) = reference else { continue };
            let key = (provider.key.namespace.to_string(), reference.name.clone());
            if !loaded.secrets.contains_key(&key) {
                missing.push(Finding {
                    object: Some((*provider.key).clone()),
                    origin: String::new(),
                    problem: Some(Problem {
                        field: field.into(),
                        reason: "SecretNotFound",
                        message: format!("no manifest holds the Secret {}/{}; deliveries wait for it", key.0, key.1),
                        refused: false,
                    }),
                });
            }
        }
    }
    missing
}

/// Prints the custom resource definitions as YAML, for `kubectl apply -f -`.
pub fn print_crds() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for crd in belfry_api::crds() {
        let yaml = serde_saphyr::to_string(&crd).context("can't write a definition as YAML")?;
        write!(out, "---\n{yaml}")?;
    }
    Ok(())
}
