//! What a store of ten million events answers, and how soon: every list of the API by each of its filters, and waits beside the
//! same ones on an empty store. Not part of a usual run, for filling the store takes a quarter of an hour.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Bed,
    histogram::Histogram,
    large_questions::{Known, Question, questions},
    large_waits,
    process::Server,
};

/// What 95 of 100 answers may take, in milliseconds.
pub const TARGET: f64 = 50.0;

/// What is asked, and of how much.
#[derive(Clone, Debug, Args)]
pub struct Large {
    /// Events in the store of the part `large`
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    events: u64,
    /// Objects that they are about
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    fleet: u64,
    /// Of these many parts of the time only the last is written by the store, the others are made from it: where writing is slow
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10))]
    copies: u64,
    /// Where they are kept
    #[arg(long, value_enum, default_value = "postgres")]
    engine: Engine,
    /// How often each question is asked
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    asked: u32,
    /// Only questions whose name holds this
    #[arg(long, value_name = "TEXT", default_value = "")]
    question: String,
    /// A folder, or the URL of a database, that was filled before
    #[arg(long, value_name = "PLACE")]
    filled: Option<String>,
    /// With `--filled`, the URL of a database without events, to compare waits with
    #[arg(long, value_name = "URL", requires = "filled")]
    empty: Option<String>,
}

/// What keeps the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// A PostgreSQL server of the benchmark's own
    Postgres,
    /// A folder
    Sqlite,
}

/// A filled store, for as long as this lives.
struct Filled {
    place: String,
    /// A database beside it without events; a folder, otherwise.
    empty: Option<String>,
    seconds: Option<f64>,
    /// It runs the database server until its standard input ends.
    keeper: Option<Child>,
    /// What was filled just now.
    folder: Option<TempDir>,
}

impl Drop for Filled {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

/// How long answers to one question took.
pub struct Row {
    /// What was asked.
    pub name: String,
    /// How long each took.
    pub took: Histogram,
    /// Items of an answer, on average; bytes, where it has no items.
    pub size: f64,
    /// Answers that ended before they looked through everything, and have nothing on them.
    pub blank: u64,
    /// What 95 of 100 may take.
    pub target: Option<f64>,
}

/// Fills a store, asks, and prints a table.
///
/// # Errors
/// When something can't be started or reached, or a question isn't answered 200.
pub fn run(bed: &Bed, large: &Large, json: Option<&PathBuf>) -> anyhow::Result<()> {
    let filled = filled(bed, large)?;
    if let Some(folder) = &filled.folder {
        bed.say("large: reading all of it into memory")?;
        read_through(folder.path())?;
    }
    let folder = bed.folder()?;
    let server = serve(bed, folder.path(), &filled.place)?;
    server.ready()?;
    let api = server.api.context("it has no API")?;
    bed.say("large: looking around")?;
    let known = Known::look(api)?;
    let mut rows = Vec::new();
    for question in questions().iter().filter(|question| question.name.contains(&large.question)) {
        bed.say(&format!("large: {}", question.name))?;
        rows.push(ask(question, &known, large.asked)?);
    }
    if "waits".contains(&large.question) {
        let folder = bed.folder()?;
        let place = filled.empty.clone().unwrap_or_else(|| folder.path().join("data").display().to_string());
        let empty = serve(bed, folder.path(), &place)?;
        empty.ready()?;
        bed.say("large: waits")?;
        rows.extend(large_waits::rows(&empty, &server, &known, large.asked)?);
        empty.terminate()?;
    }
    let memory = server.memory()?;
    server.terminate()?;
    let filling = filled
        .seconds
        .map(|seconds| format!("written at {:.0} events/s; ", (large.events / large.copies) as f64 / seconds));
    writeln!(
        std::io::stdout(),
        "{:?}: {} events about {} objects; {}resident memory {:.0} MiB after all questions\n\n{}",
        large.engine,
        large.events,
        large.fleet,
        filling.unwrap_or_default(),
        memory.now,
        table(&rows)
    )?;
    if let Some(file) = json {
        let all = json!({"events": large.events, "objects": large.fleet, "questions": rows.iter().map(Row::json).collect::<Vec<_>>()});
        std::fs::write(file, format!("{all:#}\n")).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}

/// Has the system read what it wrote a while ago: how soon a disk answers is not what is asked.
fn read_through(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_through(&entry.path())?;
        } else if kind.is_file() {
            // A running server removes files of its own.
            if let Ok(mut file) = std::fs::File::open(entry.path()) {
                std::io::copy(&mut file, &mut std::io::sink())?;
            }
        }
    }
    Ok(())
}

fn serve(bed: &Bed, folder: &Path, place: &str) -> anyhow::Result<Server> {
    let config = folder.join("config");
    std::fs::create_dir_all(&config)?;
    if place.starts_with("postgres") {
        Server::belfry_on(&bed.belfry, &config, &["--database-url", place])
    } else {
        Server::belfry(&bed.belfry, &config, Path::new(place))
    }
}

fn filled(bed: &Bed, large: &Large) -> anyhow::Result<Filled> {
    if let Some(place) = &large.filled {
        return Ok(Filled {
            place: place.clone(),
            empty: large.empty.clone(),
            seconds: None,
            keeper: None,
            folder: None,
        });
    }
    bed.say("large: filling the store")?;
    let folder = bed.folder()?;
    // The server runs as another user, who must be able to get there.
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--package", "belfry-store", "--example", "fill", "--manifest-path"]);
    command.arg(crate::root().join("Cargo.toml")).arg("--");
    let numbers = [large.events, large.fleet, large.copies].map(|number| number.to_string());
    match large.engine {
        Engine::Postgres => command.arg("postgres").args(numbers),
        Engine::Sqlite => command.arg("sqlite").args(numbers).arg(folder.path()),
    };
    let mut keeper = command.env("TMPDIR", folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(keeper.stdout.take().context("no output")?).read_line(&mut line)?;
    let Ok(said) = serde_json::from_str::<Value>(&line) else {
        let _ = keeper.wait();
        bail!("the example `fill` failed");
    };
    let place = said["url"].as_str().map_or_else(|| folder.path().display().to_string(), str::to_owned);
    let empty = said["empty"].as_str().map(str::to_owned);
    Ok(Filled { place, empty, seconds: said["seconds"].as_f64(), keeper: Some(keeper), folder: Some(folder) })
}

/// Asks one question so often, each time about something else, after a few times that don't count.
fn ask(question: &Question, known: &Known, times: u32) -> anyhow::Result<Row> {
    let mut client = super::large_client::Client::connect(known.api)?;
    let mut row =
        Row { name: question.name.to_owned(), took: Histogram::default(), size: 0.0, blank: 0, target: Some(TARGET) };
    let warm = (times / 10).max(3);
    for turn in 0..times + warm {
        let path = (question.path)(known, u64::from(turn));
        let answer = if question.streams { client.first_event(&path)? } else { client.get(&path)? };
        if turn < warm {
            continue;
        }
        row.took.record(answer.took);
        let items = serde_json::from_slice::<Value>(&answer.body).ok().and_then(|body| {
            let items = body["items"].as_array()?.len();
            Some((items, body["cursor"].is_null()))
        });
        row.size += items.map_or(answer.body.len(), |(items, _)| items) as f64 / f64::from(times);
        row.blank += u64::from(items.is_some_and(|(items, is_last)| items == 0 && !is_last));
    }
    Ok(row)
}

impl Row {
    fn json(&self) -> Value {
        json!({
            "name": self.name, "p50": self.took.quantile(0.5), "p95": self.took.quantile(0.95), "max": self.took.max(),
            "size": self.size, "blank": self.blank, "target": self.target,
        })
    }
}

fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:52} {:>8} {:>8} {:>8}  {:>7}  target (p95)\n", "milliseconds", "p50", "p95", "max", "size");
    for row in rows {
        let p95 = row.took.quantile(0.95);
        let verdict = match row.target {
            None => String::new(),
            Some(most) => format!("≤ {most:.1}  {}", if p95 <= most { "met" } else { "MISSED" }),
        };
        let _ = write!(
            text,
            "{:52} {:8.2} {p95:8.2} {:8.2}  {:7.0}  {verdict}",
            row.name,
            row.took.quantile(0.5),
            row.took.max(),
            row.size
        );
        let _ = match row.blank {
            0 => writeln!(text),
            blank => writeln!(text, "  ({blank} pages without items, but with a cursor)"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_table_says_what_was_missed() {
        let mut row =
            Row { name: "newest".into(), took: Histogram::default(), size: 500.0, blank: 2, target: Some(TARGET) };
        (1..=100).for_each(|millis| row.took.record(Duration::from_millis(millis)));
        let text = table(&[row]);
        let words: Vec<&str> = text.lines().nth(1).unwrap_or_default().split_whitespace().collect();
        assert_eq!((words[0], words[3], words[4], words[7]), ("newest", "100.00", "500", "MISSED"));
        assert!(text.contains("(2 pages without items"));
    }
}
