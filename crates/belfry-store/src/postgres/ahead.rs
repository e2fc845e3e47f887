//! Deciding ahead of the append lock. While several replicas append, each would wait for all that the others do under the lock: reading
//! what came, deciding, writing. Instead a replica gets in line for it, reads and decides meanwhile on a second connection, and sends all that it
//! writes at once: a gate, the rows, the commit. The gate shuts when somebody appended meanwhile what the decision depends on; nothing is written then, and the
//! batch is decided again.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// For so long after others appended it is likely that they do it again.
const RIVALRY: Duration = Duration::from_millis(100);
/// For so long nothing is decided ahead where that can't be.
const PAUSE: Duration = Duration::from_secs(30);
/// A batch that was overtaken so often is decided under the lock.
const TRIES: u32 = 3;

/// What a decision depends on.
#[derive(Debug)]
pub(super) struct Basis {
    /// The first numbers that it gave away, of the log and of deliveries.
    pub seq: i64,
    pub delivery: i64,
    /// The last event that was known.
    pub event: i64,
    /// The objects whose states it is made of.
    pub objects: Vec<i64>,
}

/// Whether it pays to decide ahead of the lock, and what is known of the log where that was done.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// When others were last seen to append.
    rivals: Option<Instant>,
    paused: Option<Instant>,
    /// How often the same batch was overtaken.
    overtaken: u32,
    /// Up to where others' events are known; `None` before the first batch.
    known: Option<i64>,
    /// Own events after that.
    own: HashSet<i64>,
}

impl Ahead {
    pub fn is_contended(&self) -> bool {
        self.rivals.is_some_and(|at| at.elapsed() < RIVALRY)
    }

    /// Whether the next batch is to be decided ahead of the lock.
    pub fn pays(&mut self) -> bool {
        self.paused.take_if(|at| at.elapsed() >= PAUSE);
        self.paused.is_none() && self.overtaken < TRIES && self.is_contended()
    }

    pub fn pause(&mut self) {
        self.paused = Some(Instant::now());
    }

    pub fn met_rivals(&mut self) {
        self.rivals = Some(Instant::now());
    }

    pub fn was_overtaken(&mut self) {
        self.overtaken += 1;
    }

    /// Up to where others' events are known; up to `tail`, if that isn't known yet.
    pub fn known(&mut self, tail: i64) -> i64 {
        *self.known.get_or_insert(tail)
    }

    /// Whether an event that is read again came from here.
    pub fn is_own(&self, event: i64) -> bool {
        self.own.contains(&event)
    }

    /// All up to here was read.
    pub fn learned(&mut self, last: i64) {
        self.known = self.known.max(Some(last));
        self.own.retain(|event| *event > last);
    }

    /// These were appended, and others may have appended something before them.
    pub fn appended(&mut self, events: Vec<i64>) {
        self.own.extend(events);
    }

    /// A batch came through.
    pub fn arrived(&mut self) {
        self.overtaken = 0;
    }
}

#[cfg(test)]
mod tests {
    use belfry_core::{ObjectKey, Seq, Time, plan::Origin, rollout::Hints};
    use testkit::Postgres;

    use super::*;
    use crate::{
        engine::{Appends, Begun, EngineError, Load, NewEvent, Reader as _, Writer},
        postgres::{Database, PgReader, PgWriter, open},
        queries::EventQuery,
        types::Options,
    };

    /// Later than any clock says.
    const LATER: i64 = 4_000_000_000_000_000;

    fn event(seq: i64, object: i64) -> Appends<'static> {
        let new = NewEvent {
            seq: Seq(seq),
            object,
            origin: Origin::Recorder,
            dedupe: seq.cast_unsigned(),
            body_hash: seq.cast_unsigned(),
            severity: "info",
            reason: "r",
            revision: None,
            rev: None,
            change: None,
            hints: Hints::default(),
            sent: None,
            body: b"{}",
        };
        Appends { events: vec![new], objects: vec![object], ..Appends::default() }
    }

    fn append(writer: &mut PgWriter, seq: i64, object: i64) -> crate::engine::Result<()> {
        writer.append(&event(seq, object), Time(seq))?;
        writer.commit()
    }

    fn object(writer: &mut PgWriter, name: &str) -> i64 {
        let key = ObjectKey { name: name.into(), ..ObjectKey::default() };
        writer.begin(Seq(0), Load::Any).unwrap();
        let id = writer.objects(&[&key]).unwrap()[0].id;
        writer.commit().unwrap();
        id
    }

    fn log(reader: &PgReader) -> Vec<i64> {
        let page = reader.events(&EventQuery::default()).unwrap();
        page.items.iter().rev().map(|row| row.seq.0 - LATER).collect()
    }

    #[test]
    fn what_was_decided_ahead_counts_unless_it_was_overtaken() {
        let Some(server) = Postgres::shared() else { return testkit::skip("PostgreSQL is missing") };
        let name = server.database().unwrap();
        let database = Database::at(&server.url(&name));
        let (mut one, reader) = open(&database, &Options::default()).unwrap();
        let (mut other, _others) = open(&database, &Options::default()).unwrap();
        let (a, b) = (object(&mut one, "a"), object(&mut one, "b"));
        // Who is alone has the lock.
        assert!(one.begin(Seq(0), Load::Events).unwrap().locked && !one.is_contended());
        append(&mut one, LATER + 1, a).unwrap();
        other.begin(Seq(0), Load::Any).unwrap();
        append(&mut other, LATER + 2, a).unwrap();
        one.begin(Seq(0), Load::Any).unwrap();
        one.commit().unwrap();
        assert!(one.is_contended());
        // (what is told at first, the number, its object, what `other` appends meanwhile, whether it counts)
        let cases = [
            (vec![], 20, a, None, true),
            (vec![], 30, a, Some((25, b)), true),
            (vec![25], 40, a, Some((35, a)), false),
            (vec![35], 50, a, Some((55, b)), false),
        ];
        let told = |begun: &Begun| begun.others.iter().map(|event| event.seq.0 - LATER).collect::<Vec<_>>();
        for (first_told, first, object, meanwhile, counts) in cases {
            let before = log(&reader);
            if meanwhile.is_some() {
                assert!(other.begin(Seq(0), Load::Any).unwrap().locked);
            }
            one.ahead = Ahead { overtaken: 0, rivals: Some(Instant::now()), ..std::mem::take(&mut one.ahead) };
            // It waits in line for the lock that `other` has, and decides.
            let begun = one.begin(Seq(0), Load::Events).unwrap();
            assert!(!begun.locked);
            assert_eq!(told(&begun), first_told);
            if let Some((seq, object)) = meanwhile {
                append(&mut other, LATER + seq, object).unwrap();
            }
            let appended = append(&mut one, LATER + first, object);
            assert_eq!(appended.is_ok(), counts, "{first}: {appended:?}");
            if !counts {
                assert!(matches!(appended, Err(EngineError::Overtaken)));
                one.rollback();
            }
            let mut expected = before;
            expected.extend(meanwhile.map(|(seq, _)| seq).into_iter().chain(counts.then_some(first)));
            assert_eq!(log(&reader), expected);
        }
        let begun = one.begin(Seq(0), Load::Any).unwrap();
        assert!(begun.locked && told(&begun) == [55]);
        one.commit().unwrap();
        // A batch that is overtaken again and again is decided under the lock.
        one.ahead = Ahead { overtaken: TRIES, rivals: Some(Instant::now()), ..std::mem::take(&mut one.ahead) };
        assert!(one.begin(Seq(0), Load::Events).unwrap().locked);
        append(&mut one, LATER + 60, b).unwrap();
        assert_eq!(one.ahead.overtaken, 0);
        one.close();
        other.close();
        drop((reader, _others));
        server.remove_database(&name).unwrap();
    }
}
