//! `belfry store`: what is in a store, moving it, writing it out and bringing it back.

mod progress;
mod site;
mod stats;

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use belfry_core::{Time, duration};
use belfry_store::transfer::{self, Moved, Site, Window};
use clap::{Args, Subcommand};

use self::{
    progress::Progress,
    site::{SiteFlags, site},
};

/// Bytes that are read or written at once.
const BUFFER: usize = 1 << 20;

/// Look into a store, move it, write it out, bring it back.
#[derive(Debug, Args)]
pub struct Store {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what is in a store; a server may be running on it
    Stats(stats::Stats),
    /// Move everything from one store into another that is empty; no server may be running on either
    Migrate(Migrate),
    /// Write a store to standard output, one JSON object a line; a server may be running on it
    Export(Export),
    /// Bring an export into an empty store; no server may be running on it
    Import(Import),
}

impl Store {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<()> {
        // Nothing of it is asynchronous.
        let done = tokio::task::spawn_blocking(|| match self.command {
            Command::Stats(stats) => stats.run(),
            Command::Migrate(migrate) => migrate.run(),
            Command::Export(export) => export.run(),
            Command::Import(import) => import.run(),
        });
        done.await.context("it has died")?
    }
}

/// Move everything from one store into another.
#[derive(Debug, Args)]
struct Migrate {
    /// The store that there is: the folder of --data, a postgres:// URL, or a file with that URL
    #[arg(long, value_name = "DIR|URL|FILE")]
    from: String,
    /// Where it is to go: the same; must be empty, or not there yet
    #[arg(long, value_name = "DIR|URL|FILE")]
    to: String,
}

impl Migrate {
    fn run(self) -> anyhow::Result<()> {
        let (from, to) = (site("--from", &self.from)?, site("--to", &self.to)?);
        let mut progress = Progress::default();
        let moved = transfer::migrate(&from, &to, &mut |now| progress.show(now))?;
        progress.end(&moved)?;
        let flag = match &to {
            Site::Folder(folder) => format!("--data {}", folder.display()),
            Site::Database(_) => "--database-url-file FILE".into(),
        };
        say(&format!("{to} has everything that {from} has: start `belfry serve {flag}`. {from} is as it was"))
    }
}

/// Write a store to standard output.
#[derive(Debug, Args)]
struct Export {
    #[command(flatten)]
    site: SiteFlags,
    /// Of the log only what arrived since then (RFC 3339, or a duration such as 1h), and what still waits
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Time>,
    /// Of the log only what arrived before then (RFC 3339, or a duration such as 1h), and what still waits
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Time>,
}

impl Export {
    fn run(self) -> anyhow::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER, std::io::stdout());
        let window = Window { since: self.since, until: self.until };
        let mut progress = Progress::default();
        let moved = transfer::export(&self.site.site(), window, &mut out, &mut |now| progress.show(now))?;
        progress.end(&moved)
    }
}

/// Bring an export into an empty store.
#[derive(Debug, Args)]
struct Import {
    #[command(flatten)]
    site: SiteFlags,
    /// What `belfry store export` wrote; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        let site = self.site.site();
        let mut input: Box<dyn BufRead + Send> = if self.file == Path::new("-") {
            Box::new(BufReader::with_capacity(BUFFER, std::io::stdin()))
        } else {
            let file = File::open(&self.file).with_context(|| format!("can't read {}", self.file.display()))?;
            Box::new(BufReader::with_capacity(BUFFER, file))
        };
        let mut progress = Progress::default();
        let name = if self.file == Path::new("-") { "standard input".into() } else { self.file.display().to_string() };
        let moved = transfer::import(&site, &mut *input, &mut |now| progress.show(now)).with_context(|| name)?;
        progress.end(&moved)
    }
}

fn moment(text: &str) -> Result<Time, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(Time(jiff::Timestamp::now().as_microsecond()).before(ago));
    }
    let at = text.parse::<jiff::Timestamp>().map(|at| Time(at.as_microsecond()));
    at.map_err(|_| "neither an RFC 3339 time nor a duration such as 1h30m".into())
}

/// What is said beside what is asked for.
fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stderr(), "{text}")?)
}

fn rows(moved: &[Moved]) -> u64 {
    moved.iter().map(|moved| moved.rows).sum()
}
