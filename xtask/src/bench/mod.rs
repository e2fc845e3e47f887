//! `cargo xtask bench`: what Belfry takes in, delivers and needs, measured on real processes over the loopback. Figures
//! that are compared are taken in turns within one run. Nothing here fails because a machine is slow: the table says
//! what was missed.

mod events;
mod histogram;
mod large;
mod large_client;
mod large_questions;
mod large_waits;
mod load;
mod machine;
mod manifests;
mod postgres;
mod process;
mod report;
mod resources;
mod sink;
mod steady;
mod throughput;
mod waits;
mod webhooks;

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use tempfile::TempDir;

use self::{large::Large, machine::Machine, report::Report};

/// Measure the release build against what is asked of it.
#[derive(Debug, Args)]
pub struct Bench {
    /// See that it works, rather than measure: one round, few events
    #[arg(long)]
    quick: bool,
    /// Rounds; figures are medians of them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Objects that events are about, each in its turn; a second figure has one for each event
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=events::MOST_OBJECTS))]
    objects: u64,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// File for the figures
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder with `belfry` and `examples/discard`, to measure another build than this tree's
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Folder for the stores, to measure another disk than this tree's
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    large: Box<Large>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Intake and delivery, as much as goes
    Throughput,
    /// Intake and delivery at a steady rate
    Steady,
    /// Webhooks at a steady rate
    Webhooks,
    /// Many who wait for one revision
    Waits,
    /// Appends of several replicas to one PostgreSQL
    Postgres,
    /// Resident memory
    Memory,
    /// Time from start to ready
    Start,
    /// Questions to a store of ten million events; only when it is named
    Large,
}

/// How much is posted.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// What they are about.
    objects: u64,
    /// In each run for throughput.
    events: u64,
    /// In each run at a steady rate.
    steady: u64,
    /// Before memory is looked at.
    remembered: u64,
    /// Into the store that is started from.
    stored: u64,
    /// Of these, how many wait for delivery.
    waiting: u64,
}

impl Scale {
    fn full(objects: u64) -> Self {
        Self { objects, events: 50_000, steady: 5_000, remembered: 100_000, stored: 1_000_000, waiting: 10_000 }
    }

    fn quick(objects: u64) -> Self {
        Self { objects, events: 5_000, steady: 1_000, remembered: 10_000, stored: 20_000, waiting: 1_000 }
    }
}

/// What is measured, and where it may write.
struct Bed {
    belfry: PathBuf,
    discard: PathBuf,
    /// On a disk, which a temporary folder of the system might not be.
    folder: PathBuf,
}

impl Bed {
    fn folder(&self) -> anyhow::Result<TempDir> {
        tempfile::tempdir_in(&self.folder).with_context(|| format!("can't write to {}", self.folder.display()))
    }

    fn say(&self, what: &str) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stderr(), "bench: {what}")?)
    }
}

impl Bench {
    /// Measures, and prints a table.
    ///
    /// # Errors
    /// When something can't be built, started or reached.
    pub fn run(self) -> anyhow::Result<()> {
        let root = crate::root();
        if cfg!(debug_assertions) {
            // A load generator that isn't optimised measures itself.
            return cargo(
                &root,
                &["run", "--release", "--quiet", "--package", "xtask", "--"],
                std::env::args().skip(1),
            );
        }
        let folder = self.folder.clone().unwrap_or_else(|| root.join("target/bench"));
        fs::create_dir_all(&folder).with_context(|| format!("can't write to {}", folder.display()))?;
        let binaries = match &self.binaries {
            Some(folder) => folder.clone(),
            None => {
                let what = ["build", "--release", "--package", "belfry", "--bin", "belfry", "--example", "discard"];
                cargo(&root, &what, std::iter::empty())?;
                root.join("target/release")
            }
        };
        let bed = Bed { belfry: binaries.join("belfry"), discard: binaries.join("examples/discard"), folder };
        let machine = Machine::look(&bed.folder)?;
        if self.only == [Part::Large] {
            writeln!(std::io::stdout(), "{}", machine.line())?;
            return large::run(&bed, &self.large, self.json.as_ref());
        }
        if self.only.contains(&Part::Large) {
            bail!("the part `large` is measured alone");
        }
        let mut report = Report::default();
        self.measure(&bed, &mut report)?;
        let scale = self.scale();
        let bytes =
            events::Request::new(events::About::Kustomizations, 1, SocketAddr::from(([127, 0, 0, 1], 0))).body_len();
        writeln!(
            std::io::stdout(),
            "{}\n{} rounds; {} events of {bytes} bytes about {} objects in each run\n\n{}",
            machine.line(),
            self.rounds(),
            scale.events,
            scale.objects,
            report.table()
        )?;
        if let Some(file) = &self.json {
            let mut all = report.json();
            all["machine"] = machine.json();
            all["rounds"] = json!(self.rounds());
            all["events"] = json!(scale.events);
            all["objects"] = json!(scale.objects);
            fs::write(file, format!("{all:#}\n")).with_context(|| format!("can't write {}", file.display()))?;
        }
        Ok(())
    }

    fn measure(&self, bed: &Bed, report: &mut Report) -> anyhow::Result<()> {
        let scale = self.scale();
        for round in 0..self.rounds() {
            if self.wants(Part::Throughput) {
                throughput::round(bed, &scale, round, report)?;
            }
            if self.wants(Part::Steady) {
                steady::round(bed, &scale, report)?;
            }
            if self.wants(Part::Webhooks) {
                webhooks::round(bed, &scale, report)?;
            }
            if self.wants(Part::Waits) {
                waits::round(bed, report)?;
            }
        }
        if self.wants(Part::Postgres) {
            postgres::rounds(bed, &scale, self.rounds(), report)?;
        }
        if self.wants(Part::Memory) {
            // One run takes as long as a whole round, and memory varies little.
            for _ in 0..self.rounds().min(3) {
                resources::memory(bed, &scale, report)?;
            }
        }
        if self.wants(Part::Start) {
            resources::starts(bed, &scale, self.rounds(), report)?;
        }
        Ok(())
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.into() }
    }

    fn scale(&self) -> Scale {
        if self.quick { Scale::quick(self.objects) } else { Scale::full(self.objects) }
    }
}

fn cargo(root: &Path, arguments: &[&str], more: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The folder stays the caller's, whose paths may be among the arguments.
    let (verb, rest) = arguments.split_first().context("nothing to run")?;
    let manifest = root.join("Cargo.toml");
    let status = Command::new(cargo).arg(verb).arg("--manifest-path").arg(manifest).args(rest).args(more).status()?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}
