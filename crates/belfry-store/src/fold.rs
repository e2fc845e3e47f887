//! One batch of events through the fold: what they mean, given what is in memory and in the database. Nothing of it stays
//! in memory before the batch is committed.

use std::{collections::HashMap, sync::Arc};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time, limits,
    plan::{Candidate, Plan, Seen, plan},
};

use crate::{
    cache::Cache,
    engine::{Appends, Begun, NewDelivery, NewEvent, ObjectRow, Remembered, Result, Writer},
    types::{Appended, DestId, LaneId, Options},
    windows::Windows,
};

/// Numbers of configuration objects kept in memory.
const CONFIG_CACHE: usize = 32 * 1024;

/// What the writer remembers from batch to batch, all of it committed.
#[derive(Debug)]
pub(crate) struct Memory {
    objects: Cache<ObjectKey, ObjectRow>,
    configs: Cache<ConfigKey, i64>,
    windows: Windows,
    /// The last event that it knows of.
    pub tail: Seq,
}

impl Memory {
    pub fn new(options: &Options, tail: Seq) -> Self {
        Self {
            objects: Cache::new(limits::OBJECT_CACHE),
            configs: Cache::new(CONFIG_CACHE),
            windows: Windows::new(options.window(), limits::REPEAT_WINDOW),
            tail,
        }
    }

    /// Takes in events that someone else appended.
    pub fn learn(&mut self, others: &[Remembered]) {
        if others.is_empty() {
            return;
        }
        self.objects.clear();
        for event in others {
            self.windows.add(*event);
            self.tail = self.tail.max(event.seq);
        }
    }

    /// Takes in what a batch did, once it is committed.
    pub fn keep(&mut self, folded: Folded<'_>) {
        for (key, row) in folded.objects {
            self.objects.put(key, row);
        }
        for (key, id) in folded.configs {
            self.configs.put(key, id);
        }
        for event in folded.new {
            self.windows.add(event);
            self.tail = self.tail.max(event.seq);
        }
    }

    /// Forgets what may have been read in a transaction that came to nothing.
    pub fn distrust(&mut self) {
        self.objects.clear();
        self.configs.clear();
    }
}

/// A batch that was decided.
#[derive(Debug, Default)]
pub(crate) struct Folded<'a> {
    objects: HashMap<&'a ObjectKey, ObjectRow>,
    configs: HashMap<&'a ConfigKey, i64>,
    new: Vec<Remembered>,
    /// One for each candidate.
    pub answers: Vec<Appended>,
    /// For each delivery: its destination, the Provider that is, and its number.
    pub sent: Vec<(DestId, &'a Arc<ConfigKey>, i64)>,
    by_key: HashMap<u64, Seq>,
    by_body: HashMap<u64, Seq>,
}

/// Numbers for new rows: the time, made strictly increasing.
#[derive(Debug)]
pub(crate) struct Numbers {
    pub seq: i64,
    pub delivery: i64,
}

impl Numbers {
    pub fn new(begun: &Begun) -> Self {
        Self { seq: begun.seq.0, delivery: begun.delivery }
    }

    pub fn delivery(&mut self, now: Time) -> i64 {
        self.delivery = (self.delivery + 1).max(now.0);
        self.delivery
    }
}

impl<'a> Folded<'a> {
    /// Decides about each candidate in turn.
    pub fn new(
        memory: &mut Memory,
        engine: &mut dyn Writer,
        candidates: &[&'a Candidate],
        numbers: &mut Numbers,
        options: &Options,
    ) -> Result<(Self, Appends<'a>)> {
        let mut folded = Self::default();
        let mut appends = Appends::default();
        folded.load(memory, engine, candidates)?;
        for candidate in candidates {
            folded.take(candidate, &mut appends, memory, numbers, options);
        }
        Ok((folded, appends))
    }

    fn load(&mut self, memory: &mut Memory, engine: &mut dyn Writer, candidates: &[&'a Candidate]) -> Result<()> {
        let (mut objects, mut configs) = (Vec::new(), Vec::new());
        for candidate in candidates {
            if !self.objects.contains_key(&candidate.object) {
                let known = memory.objects.get(&candidate.object).cloned();
                if known.is_none() {
                    objects.push(&candidate.object);
                }
                // What isn't known yet is replaced below; until then its place says that it was asked for.
                self.objects.insert(&candidate.object, known.unwrap_or(ObjectRow { id: 0, state: Default::default() }));
            }
            for key in candidate.routes.iter().flat_map(|route| [&*route.alert, &*route.provider]) {
                if !self.configs.contains_key(key) {
                    let known = memory.configs.get(key).copied();
                    if known.is_none() {
                        configs.push(key);
                    }
                    self.configs.insert(key, known.unwrap_or(0));
                }
            }
        }
        if !objects.is_empty() {
            let rows = engine.objects(&objects)?;
            self.objects.extend(objects.into_iter().zip(rows));
        }
        if !configs.is_empty() {
            let ids = engine.configs(&configs)?;
            self.configs.extend(configs.into_iter().zip(ids));
        }
        Ok(())
    }

    fn take(
        &mut self,
        candidate: &'a Candidate,
        appends: &mut Appends<'a>,
        memory: &Memory,
        numbers: &mut Numbers,
        options: &Options,
    ) {
        let now = (options.clock)();
        let seq = Seq(now.0.max(numbers.seq + 1));
        let Some(object) = self.objects.get_mut(&candidate.object) else { return };
        let before = memory.windows.seen(candidate.dedupe, candidate.body_hash);
        let seen = Seen {
            same_key: self.by_key.get(&candidate.dedupe).copied().or(before.same_key),
            same_body: self.by_body.get(&candidate.body_hash).copied().or(before.same_body),
        };
        match plan(&object.state, seen, candidate, options.repeat_interval, seq.time()) {
            Plan::Repeat { of } => {
                appends.repeats.push(of);
                self.answers.push(Appended::Repeat { of });
            }
            Plan::Store { state, change, deliveries } => {
                numbers.seq = seq.0;
                let id = object.id;
                if let Some(state) = state {
                    object.state = state.clone();
                    appends.states.push((id, state));
                }
                appends.events.push(NewEvent { seq, object: id, candidate, change });
                let routes = deliveries.iter().filter_map(|index| candidate.routes.get(*index));
                let mut count = 0;
                for route in routes {
                    let dest = DestId(self.configs.get(&*route.provider).copied().unwrap_or_default());
                    let delivery = NewDelivery {
                        id: numbers.delivery(now),
                        lane: LaneId::of(dest, id),
                        event: seq,
                        object: id,
                        route: self.configs.get(&*route.alert).copied().unwrap_or_default(),
                        dest,
                    };
                    appends.deliveries.push(delivery);
                    self.sent.push((dest, &route.provider, delivery.id));
                    count += 1;
                }
                self.by_key.insert(candidate.dedupe, seq);
                self.by_body.insert(candidate.body_hash, seq);
                self.new.push(Remembered { seq, dedupe: candidate.dedupe, body_hash: candidate.body_hash });
                self.answers.push(Appended::Stored { seq, change, deliveries: count });
            }
        }
    }
}
