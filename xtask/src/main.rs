//! Repository tasks: what CI and developers run. `cargo xtask test` is the one command that passes the tests.

mod assets;
mod bench;
mod tidy;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};

/// Repository tasks.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Formatting, lints, tidiness, and all tests; partners that are missing are skipped loudly
    Test,
    /// The suites that need real partners; fails where one can't be had
    Partners,
    /// Measure a release build and compare with what it is meant to do
    Bench(bench::Bench),
    /// Build kube-apiserver and etcd for the tests, and print their folder
    Assets,
    /// Check what no compiler does: module docs, file sizes, what belfry-core depends on
    Tidy,
    /// Write config/crd anew from the Rust types
    Crds,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Test => test(),
        Task::Partners => partners(),
        Task::Bench(bench) => bench.run(),
        Task::Assets => assets::run().map(|_| ()),
        Task::Tidy => tidy::run(&root()),
        Task::Crds => cargo(&["test", "--package", "belfry-api", "crds"], &[("UPDATE", "1")]),
    }
}

fn test() -> anyhow::Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    tidy::run(&root())?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"], &[])?;
    cargo(&["test", "--workspace", "--locked"], &[])
}

/// Suites that run against a real API server, Alertmanager or PostgreSQL, by package and test target.
const PARTNERS: [(&str, &str); 8] = [
    ("belfry-cluster", "*"),
    ("belfry", "*cluster"),
    ("belfry", "alertmanager"),
    ("belfry", "replicas"),
    ("belfry", "store"),
    ("belfry-store", "postgres"),
    ("belfry-store", "replicas"),
    ("belfry-store", "transfer"),
];

fn partners() -> anyhow::Result<()> {
    let folder = assets::run()?;
    let folder = folder.to_str().context("the folder of the assets is not UTF-8")?.to_owned();
    for (package, target) in PARTNERS {
        let env = [
            ("KUBEBUILDER_ASSETS", folder.as_str()),
            ("BELFRY_REQUIRE_PARTNERS", "1"),
            ("BELFRY_REQUIRE_CLUSTER", "1"),
        ];
        cargo(&["test", "--locked", "--package", package, "--test", target], &env)?;
    }
    // What the whole binary must hold on a folder, it must hold on a database.
    let whole = ["test", "--locked", "--package", "belfry", "--test", "crash", "--test", "delivery"];
    cargo(&whole, &[("BELFRY_TEST_POSTGRES", "1")])
}

fn cargo(arguments: &[&str], env: &[(&str, &str)]) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(arguments).envs(env.iter().copied()).current_dir(root()).status()?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
