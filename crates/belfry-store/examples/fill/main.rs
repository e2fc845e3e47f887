//! Fills a store with what a fleet reports in 30 days, through the store's own way of writing, by a clock that runs ahead: what
//! `cargo xtask bench --only large` asks its questions of. Where that would take too long, only the last days are written so, and
//! those before are copies of them. Says as a line of JSON what there is, and keeps a PostgreSQL server of its own running until
//! its standard input ends.

mod copies;
mod story;

use std::{
    collections::HashSet,
    io::{Read as _, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use belfry_core::Time;
use belfry_store::{
    AttemptOutcome, AttemptRecord, Claim, Database, DestId, Finish, Options, Refused, Room, Row, RowResult, RowState,
    Settlement, Store,
};
use serde_json::json;
use story::{ARCHIVE, Story, mix};
use testkit::Postgres;

/// What the log tells of.
const SPAN: i64 = 30 * DAY;
const DAY: i64 = 86_400_000_000;
/// Events on their way at a time.
const PRODUCERS: usize = 1_024;

/// Days go by with the events.
struct Clock {
    start: i64,
    span: i64,
    events: i64,
    begun: AtomicU64,
    last: AtomicI64,
}

impl Clock {
    fn new(events: u64, span: i64) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros();
        let start = i64::try_from(now)? - span;
        let (events, last) = (i64::try_from(events)?, AtomicI64::new(start));
        Ok(Self { start, span, events, begun: AtomicU64::new(0), last })
    }

    fn at(&self, number: u64) -> Time {
        Time(self.start + (i128::from(number) * i128::from(self.span) / i128::from(self.events)) as i64)
    }

    fn now(&self) -> Time {
        let now = self.at(self.begun.load(Relaxed)).0;
        Time(self.last.fetch_max(now, Relaxed).max(now))
    }
}

const USAGE: &str = "fill (postgres EVENTS OBJECTS COPIES | sqlite EVENTS OBJECTS COPIES FOLDER)";

/// Where the store is.
enum Place<'a> {
    Folder(&'a Path),
    Database(Database),
}

impl Place<'_> {
    fn open(&self, clock: &Arc<Clock>) -> anyhow::Result<Store> {
        let clock = Arc::clone(clock);
        let options = Options { clock: Arc::new(move || clock.now()), retention_bytes: 1 << 40, ..Options::default() };
        Ok(match self {
            Self::Folder(folder) => Store::open_sqlite(folder, options)?,
            Self::Database(database) => Store::open_postgres(database, options)?,
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [engine, events, objects, copies, rest @ ..] = &arguments[..] else { bail!(USAGE) };
    let copies = copies.parse::<i64>()?.clamp(1, 10);
    let (events, span) = (events.parse::<u64>()? / copies.unsigned_abs(), SPAN / copies);
    let story = Story { events, objects: objects.parse::<u64>()?.max(1_000) };
    let clock = Arc::new(Clock::new(story.events, span)?);
    match (engine.as_str(), rest) {
        ("sqlite", [folder]) => {
            let took = fill(&Place::Folder(Path::new(folder)), story, &clock).await?;
            copies::in_folder(Path::new(folder), copies, span, Time(clock.start))?;
            say(&json!({"written": story.events, "seconds": took.as_secs_f64()}))
        }
        ("postgres", []) => {
            // What an administrator would give a database of this size.
            let settings = [("shared_buffers", "2GB"), ("max_wal_size", "3GB"), ("checkpoint_timeout", "15min")];
            let server = Postgres::start(&settings)?.context("PostgreSQL is missing")?;
            let name = server.database()?;
            let url = server.url(&name);
            let place = Place::Database(Database::at(&url));
            for day in 1..=(SPAN - span) / DAY + 1 {
                // Opening it makes partitions for a day.
                let clock = Clock { start: clock.start - day * DAY, ..Clock::new(1, span)? };
                clock.last.store(clock.start, Relaxed);
                place.open(&Arc::new(clock))?.close().await;
            }
            let took = fill(&place, story, &clock).await?;
            copies::in_postgres(&server, &name, copies, span, Time(clock.start))?;
            // As autovacuum would have in a month.
            server.sql(&name, "VACUUM ANALYZE")?;
            let empty = server.url(&server.database()?);
            say(&json!({"written": story.events, "seconds": took.as_secs_f64(), "url": url, "empty": empty}))?;
            std::io::stdin().read_to_end(&mut Vec::new())?;
            Ok(())
        }
        _ => bail!(USAGE),
    }
}

fn say(what: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}

async fn fill(place: &Place<'_>, story: Story, clock: &Arc<Clock>) -> anyhow::Result<Duration> {
    let started = Instant::now();
    // Opening it prepares the day: the clock runs ahead of whatever does that by and by.
    let days = (clock.span / DAY).unsigned_abs();
    for day in 0..days {
        let (from, to) = (story.events * day / days, story.events * (day + 1) / days);
        clock.begun.store(from, Relaxed);
        let store = place.open(clock)?;
        append(&store, story, clock, to).await?;
        store.close().await;
        writeln!(std::io::stderr(), "fill: day {} of {days}, {to} events in {:.0?}", day + 1, started.elapsed())?;
    }
    Ok(started.elapsed())
}

/// Appends up to this number, while what is due is delivered.
async fn append(store: &Store, story: Story, clock: &Arc<Clock>, end: u64) -> anyhow::Result<()> {
    let over = Arc::new(AtomicBool::new(false));
    let courier = tokio::spawn(deliver(store.clone(), Arc::clone(clock), Arc::clone(&over)));
    let mut producers = tokio::task::JoinSet::new();
    for _ in 0..PRODUCERS {
        let (store, clock) = (store.clone(), Arc::clone(clock));
        producers.spawn(async move {
            loop {
                let number = clock.begun.fetch_add(1, Relaxed);
                if number >= end {
                    return Ok(());
                }
                let candidate = story.candidate(number, clock.at(number));
                // As controllers do that are told 503.
                while let Err(refused) = store.append(candidate.clone()).await {
                    if matches!(refused, Refused::Invalid(_)) {
                        return Err(refused);
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
    }
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    over.store(true, Relaxed);
    courier.await?
}

/// Delivers until there is nothing more to deliver and nothing more will come.
async fn deliver(store: Store, clock: Arc<Clock>, over: Arc<AtomicBool>) -> anyhow::Result<()> {
    loop {
        let last = over.load(Relaxed);
        let dests = store.dests().await?;
        let mut tried = HashSet::new();
        let rooms: Vec<(DestId, Room)> = dests
            .into_iter()
            .filter(|(_, key, due)| &*key.name != ARCHIVE && due.is_some_and(|due| due <= clock.now()))
            .map(|(dest, ..)| (dest, Room { lanes: 512, probe: false }))
            .collect();
        if !rooms.is_empty() {
            for claim in store.claim(rooms).await?.lanes {
                tried.insert(claim.lane);
                store.settle(outcome(&claim, clock.now()));
            }
            store.flush().await;
        }
        if tried.is_empty() {
            if last {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What came of a claim: most is taken at once, some at the second try, some never.
fn outcome(claim: &Claim, now: Time) -> Settlement {
    let mut results = Vec::new();
    let mut due = None;
    for row in &claim.rows {
        let fate = mix(row.id.unsigned_abs(), 3) % 100;
        let state = match fate {
            0..=2 if row.attempts == 0 => RowState::Retry,
            3 => RowState::Dead("404 Not Found: channel_not_found".into()),
            _ => RowState::Delivered,
        };
        let retry = state == RowState::Retry;
        results.push(attempt(row, state, now));
        if retry {
            due = Some(now.after(Duration::from_secs(30)));
            break;
        }
    }
    let finish = Some(Finish { due, memo: None, step_aside: None });
    Settlement { lane: claim.lane, dest: claim.dest, results, finish }
}

fn attempt(row: &Row, state: RowState, now: Time) -> RowResult {
    let (status, outcome, error) = match &state {
        RowState::Retry => (503, AttemptOutcome::Retry, "503 Service Unavailable"),
        RowState::Dead(_) => (404, AttemptOutcome::Rejected, "404 Not Found: channel_not_found"),
        _ => (200, AttemptOutcome::Delivered, ""),
    };
    let attempt = AttemptRecord {
        n: row.attempts + 1,
        at: now,
        took: Duration::from_millis(87),
        status: Some(status),
        outcome,
        error: error.into(),
    };
    RowResult { delivery: row.id, attempt: Some(attempt), state }
}
