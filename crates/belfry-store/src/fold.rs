//! One batch of inputs through the fold: what they mean, given what is in memory and in the database. Nothing of it stays
//! in memory before the batch is committed.

use std::{
    borrow::Cow,
    collections::{HashSet, hash_map::Entry},
    sync::{Arc, LazyLock},
};

use belfry_core::{
    ConfigKey, ObjectKey, Seq, Time, limits,
    plan::{Candidate, ObjectState, Origin, Plan, RouteRef, Seen, Stored, observe, plan},
    rollout::Hints,
};
use foldhash::HashMap;

use crate::{
    cache::Cache,
    engine::{Appends, Begun, NewDelivery, NewEvent, NewHook, ObjectRow, Remembered, RememberedHook, Result, Writer},
    hooks::{Hook, HookVerdict, Hooked},
    queries::DeliveryKind,
    queue::Watched,
    rev,
    types::{Appended, DestId, LaneId, Options},
    windows::{HookWindow, Windows},
};

/// Numbers of configuration objects kept in memory.
const CONFIG_CACHE: usize = 32 * 1024;
/// Where triggers go.
static CLUSTER: LazyLock<Arc<ConfigKey>> = LazyLock::new(|| Arc::new(ConfigKey::cluster()));

/// What the writer remembers from batch to batch, all of it committed.
#[derive(Debug)]
pub(crate) struct Memory {
    objects: Cache<ObjectKey, ObjectRow>,
    /// Those that someone else changed since.
    stale: HashSet<i64>,
    configs: Cache<ConfigKey, i64>,
    windows: Windows,
    hooks: HookWindow,
    /// The last event that it knows of.
    pub tail: Seq,
}

impl Memory {
    pub fn new(options: &Options, tail: Seq) -> Self {
        Self {
            objects: Cache::new(limits::OBJECT_CACHE),
            stale: HashSet::new(),
            configs: Cache::new(CONFIG_CACHE),
            windows: Windows::new(options.window(), limits::REPEAT_WINDOW),
            hooks: HookWindow::new(limits::HOOK_REPEAT, limits::HOOK_WINDOW),
            tail,
        }
    }

    /// Takes in what someone else appended.
    pub fn learn(&mut self, begun: &Begun) {
        match &begun.touched {
            Some(touched) if self.stale.len() + touched.len() < limits::OBJECT_CACHE => self.stale.extend(touched),
            _ => self.forget_objects(),
        }
        self.remember(&begun.others);
    }

    /// Known objects of these inputs, and whether others changed them. None while nobody else changes any.
    pub fn foresee<'a>(&mut self, inputs: impl Iterator<Item = Input<'a>>) -> Vec<(i64, bool)> {
        if self.stale.is_empty() {
            return Vec::new();
        }
        let known: HashSet<i64> =
            inputs.flat_map(Input::objects).filter_map(|key| Some(self.objects.get(key)?.id)).collect();
        known.into_iter().map(|id| (id, self.stale.contains(&id))).collect()
    }

    fn forget_objects(&mut self) {
        self.objects.clear();
        self.stale.clear();
    }

    /// Takes in events of the last minutes.
    pub fn remember(&mut self, events: &[Remembered]) {
        for event in events {
            self.windows.add(*event);
            self.tail = self.tail.max(event.seq);
        }
    }

    /// Takes in webhooks from before.
    pub fn learn_hooks(&mut self, hooks: Vec<RememberedHook>) {
        hooks.into_iter().for_each(|hook| self.hooks.add(hook));
    }

    /// Takes in what a batch did, once it is committed.
    pub fn keep(&mut self, folded: Folded<'_>) {
        for (key, row) in folded.objects {
            self.stale.remove(&row.id);
            self.objects.put(key, row);
        }
        for (key, id) in folded.configs {
            self.configs.put(key, id);
        }
        for event in folded.new {
            self.windows.add(event);
            self.tail = self.tail.max(event.seq);
        }
        self.learn_hooks(folded.hooks);
    }

    /// Forgets what may have been read in a transaction that came to nothing.
    pub fn distrust(&mut self) {
        self.forget_objects();
        self.configs.clear();
    }
}

/// One thing to take in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input<'a> {
    Event(&'a Candidate),
    Observed(&'a Watched),
    Hook(&'a Hook),
}

impl<'a> Input<'a> {
    fn objects(self) -> impl Iterator<Item = &'a ObjectKey> {
        let (one, more) = match self {
            Self::Event(candidate) => (Some(&candidate.object), &[][..]),
            Self::Observed(watched) => (Some(&watched.sighting.object), &[][..]),
            Self::Hook(hook) => (None, hook.triggers.as_slice()),
        };
        one.into_iter().chain(more.iter().map(|trigger| &trigger.object))
    }

    fn configs(self) -> impl Iterator<Item = &'a ConfigKey> {
        let (routes, receiver) = match self {
            Self::Event(candidate) => (candidate.routes.as_slice(), None),
            Self::Observed(watched) => (watched.routes.as_slice(), None),
            Self::Hook(hook) => (&[][..], Some([&*hook.receiver, &**CLUSTER])),
        };
        routes.iter().flat_map(|route| [&*route.route, &*route.provider]).chain(receiver.into_iter().flatten())
    }
}

/// An event's id, in the cluster that it is of.
fn id_of(candidate: &Candidate) -> Option<(u64, &str)> {
    candidate.sent.as_ref().map(|sent| (sent.identity, candidate.object.cluster.as_str()))
}

/// What one input came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    Event(Appended),
    Observed(Option<Seq>),
    Hook(Hooked),
}

/// A batch that was decided.
#[derive(Debug, Default)]
pub(crate) struct Folded<'a> {
    objects: HashMap<&'a ObjectKey, ObjectRow>,
    configs: HashMap<&'a ConfigKey, i64>,
    /// Events and observations.
    pub new: Vec<Remembered>,
    hooks: Vec<RememberedHook>,
    /// One for each input.
    pub answers: Vec<Answered>,
    /// For each delivery: its destination, the Provider that is, and its number.
    pub sent: Vec<(DestId, &'a Arc<ConfigKey>, i64)>,
    by_key: HashMap<u64, Seq>,
    by_body: HashMap<u64, Seq>,
    /// By id and cluster.
    by_id: HashMap<(u64, &'a str), Seq>,
    by_hook: HashMap<(i64, &'a str), Seq>,
    /// Lanes with a trigger that waits and isn't in flight.
    triggered: HashSet<LaneId>,
}

/// Numbers for new rows: the time, made strictly increasing.
#[derive(Debug)]
pub(crate) struct Numbers {
    seq: i64,
    delivery: i64,
}

impl Numbers {
    pub fn new(begun: &Begun) -> Self {
        Self { seq: begun.seq.0, delivery: begun.delivery }
    }

    /// The next one of the log; taken once something is stored under it.
    fn next(&self, now: Time) -> Seq {
        Seq(now.0.max(self.seq + 1))
    }

    pub fn delivery(&mut self, now: Time) -> i64 {
        self.delivery = (self.delivery + 1).max(now.0);
        self.delivery
    }
}

impl<'a> Folded<'a> {
    /// Decides about each input in turn.
    pub fn new(
        memory: &mut Memory,
        engine: &mut dyn Writer,
        inputs: &[Input<'a>],
        numbers: &mut Numbers,
        options: &Options,
        now: Time,
    ) -> Result<(Self, Appends<'a>)> {
        let mut folded = Self::default();
        let mut appends = Appends::default();
        folded.load(memory, engine, inputs)?;
        for input in inputs {
            let answer = match input {
                Input::Event(candidate) => {
                    Answered::Event(folded.event(candidate, &mut appends, memory, numbers, options, now))
                }
                Input::Observed(watched) => Answered::Observed(folded.observed(watched, &mut appends, numbers, now)),
                Input::Hook(hook) => Answered::Hook(folded.hook(hook, &mut appends, memory, numbers, now)),
            };
            folded.answers.push(answer);
        }
        appends.objects = folded.objects.values().map(|row| row.id).collect();
        Ok((folded, appends))
    }

    fn load(&mut self, memory: &mut Memory, engine: &mut dyn Writer, inputs: &[Input<'a>]) -> Result<()> {
        let (mut objects, mut stale, mut configs) = (Vec::new(), Vec::new(), Vec::new());
        for key in inputs.iter().flat_map(|input| input.objects()) {
            if let Entry::Vacant(place) = self.objects.entry(key) {
                let known = memory.objects.get(key).cloned();
                match &known {
                    None => objects.push(key),
                    Some(row) if memory.stale.contains(&row.id) => stale.push((key, row.id)),
                    Some(_) => {}
                }
                // What isn't known yet is replaced below; until then its place says that it was asked for.
                place.insert(known.unwrap_or(ObjectRow { id: 0, state: Default::default() }));
            }
        }
        for key in inputs.iter().flat_map(|input| input.configs()) {
            if let Entry::Vacant(place) = self.configs.entry(key) {
                let known = memory.configs.get(key).copied();
                if known.is_none() {
                    configs.push(key);
                }
                place.insert(known.unwrap_or(0));
            }
        }
        if !objects.is_empty() {
            let rows = engine.objects(&objects)?;
            self.objects.extend(objects.into_iter().zip(rows));
        }
        if !stale.is_empty() {
            let ids: Vec<i64> = stale.iter().map(|(_, id)| *id).collect();
            let states = stale.into_iter().zip(engine.states(&ids)?);
            self.objects.extend(states.map(|((key, id), state)| (key, ObjectRow { id, state })));
        }
        if !configs.is_empty() {
            let ids = engine.configs(&configs)?;
            self.configs.extend(configs.into_iter().zip(ids));
        }
        let events = inputs.iter().filter_map(|input| if let Input::Event(event) = input { Some(event) } else { None });
        let ids: Vec<_> = events.filter_map(|event| id_of(event)).collect();
        if !ids.is_empty() {
            let known = ids.iter().copied().zip(engine.sent(&ids)?);
            self.by_id.extend(known.filter_map(|(id, seq)| Some((id, seq?))));
        }
        let triggers = inputs.iter().filter_map(|input| if let Input::Hook(hook) = input { Some(hook) } else { None });
        let lanes: Vec<LaneId> =
            triggers.flat_map(|hook| &hook.triggers).map(|trigger| self.trigger_lane(&trigger.object).0).collect();
        if !lanes.is_empty() {
            self.triggered = engine.waiting(&lanes)?;
        }
        Ok(())
    }

    fn config(&self, key: &ConfigKey) -> i64 {
        self.configs.get(key).copied().unwrap_or_default()
    }

    /// The lane of an object's triggers, and the object's number.
    fn trigger_lane(&self, object: &ObjectKey) -> (LaneId, i64) {
        let object = self.objects.get(object).map(|row| row.id).unwrap_or_default();
        (LaneId::of(DestId(self.config(&CLUSTER)), object), object)
    }

    fn event(
        &mut self,
        candidate: &'a Candidate,
        appends: &mut Appends<'a>,
        memory: &Memory,
        numbers: &mut Numbers,
        options: &Options,
        now: Time,
    ) -> Appended {
        let seq = numbers.next(now);
        let (id, state) = self.object(&candidate.object);
        let before = memory.windows.seen(candidate.dedupe, candidate.body_hash);
        let seen = Seen {
            same_key: self.by_key.get(&candidate.dedupe).copied().or(before.same_key),
            same_body: self.by_body.get(&candidate.body_hash).copied().or(before.same_body),
            same_id: id_of(candidate).and_then(|id| self.by_id.get(&id).copied()),
        };
        let stored = match plan(&state, seen, candidate, options.repeat_interval, seq) {
            Plan::Repeat { of } => {
                appends.repeats.push(of);
                return Appended::Repeat { of };
            }
            Plan::Store(stored) => stored,
        };
        let change = stored.change;
        let named = candidate.commit.as_deref().or(candidate.revision.as_deref());
        appends.events.push(NewEvent {
            seq,
            object: id,
            origin: candidate.origin,
            dedupe: candidate.dedupe,
            body_hash: candidate.body_hash,
            severity: &candidate.severity,
            reason: &candidate.reason,
            revision: candidate.revision.as_deref(),
            rev: named.map(rev::number),
            change,
            hints: candidate.rollout.as_ref().map(|details| details.hints).unwrap_or_default(),
            sent: candidate.sent.as_deref(),
            body: &candidate.body,
        });
        self.by_key.insert(candidate.dedupe, seq);
        self.by_body.insert(candidate.body_hash, seq);
        self.by_id.extend(id_of(candidate).map(|id| (id, seq)));
        self.new.push(Remembered { seq, dedupe: candidate.dedupe, body_hash: candidate.body_hash });
        let deliveries = self.store(seq, &candidate.object, stored, &candidate.routes, appends, numbers, now);
        Appended::Stored { seq, change, deliveries }
    }

    fn observed(
        &mut self,
        watched: &'a Watched,
        appends: &mut Appends<'a>,
        numbers: &mut Numbers,
        now: Time,
    ) -> Option<Seq> {
        let seq = numbers.next(now);
        let sighting = &watched.sighting;
        let (id, state) = self.object(&sighting.object);
        let stored = observe(&state, sighting, &watched.routes, seq)?;
        let (severity, reason) = sighting.words();
        let named = sighting.commit.as_deref().or(sighting.revision.as_deref());
        // Nothing is a repeat of it: its hashes are those of no event.
        let hash = rev::fnv(&String::from_utf8_lossy(&watched.body));
        appends.events.push(NewEvent {
            seq,
            object: id,
            origin: Origin::Observed,
            dedupe: hash,
            body_hash: hash,
            severity,
            reason,
            revision: sighting.revision.as_deref(),
            rev: named.map(rev::number),
            change: None,
            hints: Hints::default(),
            sent: None,
            body: &watched.body,
        });
        self.new.push(Remembered { seq, dedupe: hash, body_hash: hash });
        self.store(seq, &sighting.object, stored, &watched.routes, appends, numbers, now);
        Some(seq)
    }

    fn object(&self, key: &ObjectKey) -> (i64, Arc<ObjectState>) {
        self.objects.get(key).map(|row| (row.id, Arc::clone(&row.state))).unwrap_or_default()
    }

    /// Takes over what an input means for its object and its routes; says how many deliveries that makes.
    #[allow(clippy::too_many_arguments, reason = "all that a batch is made of")]
    fn store(
        &mut self,
        seq: Seq,
        key: &ObjectKey,
        stored: Stored,
        routes: &'a [RouteRef],
        appends: &mut Appends<'a>,
        numbers: &mut Numbers,
        now: Time,
    ) -> u32 {
        numbers.seq = seq.0;
        let Some(row) = self.objects.get_mut(key) else { return 0 };
        let object = row.id;
        if let Some(state) = stored.state {
            row.state = state;
            appends.states.insert(object, Arc::clone(&row.state));
        }
        let mut count = 0;
        for told in &stored.deliveries {
            let Some(route) = routes.get(told.route) else { continue };
            let (dest, route_id) = (DestId(self.config(&route.provider)), self.config(&route.route));
            let (kind, rollout, lane, due) = match told.rollout.and_then(|i| stored.rollouts.get(i)) {
                None => (DeliveryKind::Event, None, LaneId::of(dest, object), now),
                Some(rollout) => {
                    let subject = rollout.commit.as_deref().unwrap_or(&rollout.revision);
                    let lane = LaneId::of_state(dest, route_id, (!route.aggregate).then_some(object), subject);
                    (DeliveryKind::Rollout, Some(rollout.id), lane, now.after(route.holds_back(rollout.state)))
                }
            };
            let id = numbers.delivery(now);
            appends.deliveries.push(NewDelivery {
                id,
                lane,
                kind,
                cause: seq,
                rollout,
                object,
                route: route_id,
                dest,
                due,
            });
            self.sent.push((dest, &route.provider, id));
            count += 1;
        }
        appends.rollouts.extend(stored.rollouts.into_iter().map(|rollout| (rollout.id, (object, rollout))));
        count
    }

    fn hook(
        &mut self,
        hook: &'a Hook,
        appends: &mut Appends<'a>,
        memory: &Memory,
        numbers: &mut Numbers,
        now: Time,
    ) -> Hooked {
        let seq = numbers.next(now);
        numbers.seq = seq.0;
        let receiver = self.config(&hook.receiver);
        // What isn't genuine may carry any id.
        let id = hook.delivery_id.as_deref().filter(|_| hook.verdict != HookVerdict::Refused);
        let repeat_of = id.and_then(|id| {
            let in_batch = self.by_hook.get(&(receiver, id)).copied();
            in_batch.or_else(|| memory.hooks.seen(receiver, id, seq))
        });
        let mut new =
            NewHook { seq, receiver, verdict: hook.verdict, reason: Cow::Borrowed(&hook.reason), merged: 0, hook };
        let mut hooked = Hooked { seq, repeat_of, new: 0, merged: 0 };
        if let Some(of) = repeat_of {
            new.verdict = HookVerdict::Repeat;
            new.reason = format!("the webhook of {} again", of.time()).into();
        } else {
            if let Some(id) = id {
                self.by_hook.insert((receiver, id), seq);
                self.hooks.push(RememberedHook { seq, receiver, delivery_id: id.to_owned() });
            }
            if hook.verdict == HookVerdict::Accepted {
                self.trigger(hook, receiver, &mut hooked, appends, numbers, now);
            }
        }
        new.merged = hooked.merged;
        appends.hooks.push(new);
        hooked
    }

    /// One delivery for each object that has none waiting.
    fn trigger(
        &mut self,
        hook: &'a Hook,
        receiver: i64,
        hooked: &mut Hooked,
        appends: &mut Appends<'a>,
        numbers: &mut Numbers,
        now: Time,
    ) {
        let dest = DestId(self.config(&CLUSTER));
        for trigger in &hook.triggers {
            let (lane, object) = self.trigger_lane(&trigger.object);
            if !self.triggered.insert(lane) {
                hooked.merged += 1;
                continue;
            }
            let id = numbers.delivery(now);
            appends.deliveries.push(NewDelivery {
                id,
                lane,
                kind: DeliveryKind::Trigger,
                cause: hooked.seq,
                rollout: None,
                object,
                route: receiver,
                dest,
                due: now,
            });
            self.sent.push((dest, &CLUSTER, id));
            hooked.new += 1;
        }
    }
}
