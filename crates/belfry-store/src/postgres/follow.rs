//! What a replica does beside its work: it says that it lives, hears what the others say, and takes over from the dead.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use belfry_core::Seq;

use super::{
    CHANNEL, circuits,
    flight::Flight,
    link::{Link, step},
    place::Database,
    voice::Voice,
};
use crate::{
    engine::{EngineError, Result},
    stats::Shared,
    types::{Clock, DestId},
};

/// How often is looked what nobody said.
const POLL: Duration = Duration::from_secs(10);
/// How long nothing is said after something was, for each replica that there is: everybody hears what everybody says.
const SILENCE: Duration = Duration::from_millis(20);
/// How long after a failure the next try comes.
const AGAIN: Duration = Duration::from_secs(1);

/// Says that the replica lives. Not while the server has just come up: then nobody had the chance.
const RENEW: &str =
    "UPDATE replica SET until = clock_timestamp() + make_interval(secs => $2) WHERE id = $1 RETURNING id";
const ENTER: &str =
    "INSERT INTO replica(name, until) VALUES($1, clock_timestamp() + make_interval(secs => $2)) RETURNING id";
const BURY: &str = "DELETE FROM replica
    WHERE greatest(until, pg_postmaster_start_time() + make_interval(secs => $1)) < clock_timestamp() RETURNING name";
const TAKE_OVER: &str = "UPDATE lane SET owner = NULL, first = NULL, woken = FALSE, doubt = TRUE
    WHERE due IS NOT NULL AND owner IS NOT NULL AND NOT EXISTS(SELECT 1 FROM replica WHERE replica.id = lane.owner)
    RETURNING dest";
/// Destinations with work that is due and that nobody is at.
const DUE: &str = "SELECT id FROM config c WHERE c.kind IN ('Provider', 'Cluster')
    AND EXISTS(SELECT 1 FROM lane WHERE dest = c.id AND due <= $1 AND owner IS NULL)";

/// Nothing is lost with what nobody hears: it isn't waited for until it is on disk.
const SAY: &str = "SELECT set_config('synchronous_commit', 'off', TRUE), pg_notify($1, $2)";

const COUNT: &str = "SELECT count(*) FROM replica WHERE until > clock_timestamp()";

fn numbers(list: Option<&str>) -> impl Iterator<Item = i64> {
    list.unwrap_or_default().split(',').filter_map(|number| number.parse().ok())
}

pub(super) struct Follower {
    database: Arc<Database>,
    flight: Arc<Flight>,
    voice: Arc<Voice>,
    clock: Clock,
    /// The first connection, until the thread takes it.
    first: Mutex<Option<Link>>,
    stopped: AtomicBool,
}

impl Follower {
    /// Makes the replica known, and listens from now on.
    pub fn open(database: Arc<Database>, flight: Arc<Flight>, voice: Arc<Voice>, clock: Clock) -> Result<Self> {
        let follower =
            Self { database, flight, voice, clock, first: Mutex::default(), stopped: AtomicBool::new(false) };
        let link = follower.connect()?;
        *follower.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(follower)
    }

    /// How this replica begins what it says.
    pub fn voice(&self) -> &str {
        self.voice.name()
    }

    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.voice.nudge.notify_one();
    }

    fn connect(&self) -> Result<Link> {
        let mut link = Link::open(&self.database)?;
        link.batch(&format!("LISTEN {CHANNEL}"))?;
        self.renew(&mut link)?;
        Ok(link)
    }

    /// Works until it is stopped.
    pub fn run(&self, shared: &Shared, doubted: &dyn Fn()) {
        let mut link = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        while !self.stopped.load(Relaxed) {
            let followed = match link.take() {
                // Who begins looks for work by itself.
                Some(mut link) => self.look_around(&mut link, shared).and_then(|()| self.follow(link, shared)),
                None => self.connect().and_then(|mut link| {
                    // Whatever was said meanwhile was not heard.
                    self.look(&mut link, shared)?;
                    self.follow(link, shared)
                }),
            };
            if let Err(error) = followed {
                tracing::debug!(%error, "not connected to the other replicas");
                doubted();
                self.pause();
            }
        }
    }

    fn pause(&self) {
        let deadline = Instant::now() + AGAIN;
        while !self.stopped.load(Relaxed) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn follow(&self, mut link: Link, shared: &Shared) -> Result<()> {
        let beat = self.database.lease / 10;
        let (mut renewed, mut looked) = (Instant::now(), Instant::now());
        let mut said: Option<Instant> = None;
        while !self.stopped.load(Relaxed) {
            let pause = SILENCE * shared.replicas.load(Relaxed);
            let silence = said.map_or(Duration::ZERO, |said| pause.saturating_sub(said.elapsed()));
            let most = if self.voice.has_news() { silence } else { Duration::MAX };
            let Some(heard) = link.listen(beat.saturating_sub(renewed.elapsed()).min(most), &self.voice.nudge) else {
                return Err(EngineError::Down("the connection is lost".into()));
            };
            self.hear(&mut link, &heard, shared)?;
            if said.is_none_or(|said| said.elapsed() >= pause)
                && let Some(notice) = self.voice.take()
            {
                link.query(SAY, &[&CHANNEL, &notice])?;
                said = Some(Instant::now());
            }
            if renewed.elapsed() >= beat {
                self.renew(&mut link)?;
                self.count(&mut link, shared)?;
                self.bury(&mut link, shared)?;
                renewed = Instant::now();
            }
            if looked.elapsed() >= POLL {
                self.look(&mut link, shared)?;
                looked = Instant::now();
            }
        }
        Ok(())
    }

    fn hear(&self, link: &mut Link, heard: &[String], shared: &Shared) -> Result<()> {
        let (mut head, mut dests, mut circuits) = (0, HashSet::new(), Vec::new());
        for notice in heard {
            let mut words = notice.splitn(5, ':');
            if words.next() == Some(self.voice.name()) {
                continue;
            }
            head = words.next().and_then(|seq| seq.parse().ok()).unwrap_or(0).max(head);
            match words.next() {
                Some("*") => self.look(link, shared)?,
                named => dests.extend(numbers(named).map(DestId)),
            }
            circuits.extend(numbers(words.next()));
            if let Some(words) = words.next() {
                // Who listens, if anybody does, is nobody's business here.
                let _ = shared.words.send(words.into());
            }
        }
        if !circuits.is_empty() {
            self.look_at_circuits(link, circuits, false, shared)?;
        }
        shared.moved(Seq(head));
        shared.wake(dests);
        Ok(())
    }

    /// Looks what there is, whatever was said.
    fn look(&self, link: &mut Link, shared: &Shared) -> Result<()> {
        let now = (self.clock)();
        let rows = link.pipeline(&[step("SELECT event FROM head", []), step(DUE, [&now.0])])?;
        if let Some(row) = rows[0].first() {
            shared.moved(Seq(row.get(0)));
        }
        shared.wake(rows[1].iter().map(|row| DestId(row.get(0))));
        self.look_around(link, shared)
    }

    /// Looks who else is there, and what they know of circuits.
    fn look_around(&self, link: &mut Link, shared: &Shared) -> Result<()> {
        self.count(link, shared)?;
        let known = shared.circuits().open();
        self.look_at_circuits(link, known, true, shared)
    }

    /// Counts the replicas, this one among them.
    fn count(&self, link: &mut Link, shared: &Shared) -> Result<()> {
        let rows = link.query(COUNT, &[])?;
        let count = rows.first().and_then(|row| row.get::<_, i64>(0).try_into().ok());
        shared.replicas.store(count.unwrap_or(1), Relaxed);
        Ok(())
    }

    fn look_at_circuits(&self, link: &mut Link, dests: Vec<i64>, open: bool, shared: &Shared) -> Result<()> {
        let read = circuits::read(link, &dests, open, (self.clock)())?;
        let mut circuits = shared.circuits();
        let news: Vec<DestId> =
            read.into_iter().filter_map(|(dest, told)| circuits.heard(dest, told).then_some(dest)).collect();
        drop(circuits);
        shared.wake(news);
        Ok(())
    }

    fn renew(&self, link: &mut Link) -> Result<()> {
        if self.flight.is_closed() {
            return Ok(());
        }
        let (asked, lease) = (Instant::now(), self.database.lease.as_secs_f64());
        if let Some(owner) = self.flight.owner() {
            if !link.query(RENEW, &[&owner, &lease])?.is_empty() {
                self.flight.lease(owner, asked);
                return Ok(());
            }
            tracing::warn!("this replica was taken for dead: others go on with what it had begun");
            self.flight.buried();
        }
        let asked = Instant::now();
        let name = format!("{}-{}", self.voice.name(), std::process::id());
        let rows = link.query(ENTER, &[&name, &lease])?;
        if let Some(row) = rows.first() {
            self.flight.lease(row.get(0), asked);
        }
        Ok(())
    }

    /// Takes over what those have in flight that weren't heard of for long. Whoever lives and finds himself gone takes another
    /// name: the row that it renews is the one that is removed here.
    fn bury(&self, link: &mut Link, shared: &Shared) -> Result<()> {
        let lease = self.database.lease.as_secs_f64();
        link.batch("BEGIN")?;
        let dead = link.query(BURY, &[&lease])?;
        // A statement of its own: it sees what the dead claimed last.
        let lanes = if dead.is_empty() { Vec::new() } else { link.query(TAKE_OVER, &[])? };
        let dests: HashSet<DestId> = lanes.iter().map(|row| DestId(row.get(0))).collect();
        if !dests.is_empty() {
            link.query("SELECT pg_notify($1, $2)", &[&CHANNEL, &format!("{}::*", self.voice.name())])?;
        }
        link.batch("COMMIT")?;
        if !dead.is_empty() {
            tracing::warn!(
                replicas = dead.len(),
                lanes = lanes.len(),
                "replicas died: what they had begun is done again"
            );
        }
        shared.wake(dests);
        Ok(())
    }
}
