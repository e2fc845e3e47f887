//! Random work on state lanes against a model of a few lines: whatever happens, a destination is told the newest state
//! of every rollout and nothing older after it, and each object has at most one trigger waiting.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belfry_core::{
    ConfigKey, Seq,
    plan::{Candidate, ObjectState, Plan, Seen, plan},
};
use belfry_store::{
    Appended, Claim, DeliveryQuery, DestId, Finish, Hook, HookVerdict, Room, RowState, Settlement, TriggerRef, What,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{Fixture, World, kustomization, report, settlement, status};

const OBJECTS: [&str; 2] = ["app", "other"];
const REASONS: [&str; 4] = ["Progressing", "!BuildFailed", "ReconciliationSucceeded", "DependencyNotReady"];

#[derive(Clone, Debug)]
enum Step {
    Tell { object: usize, commit: u8, reason: usize },
    Hook { objects: [bool; 2] },
    Claim { probe: bool },
    Settle { claim: u8, deliver: bool, retry: u8 },
    Release { claim: u8 },
    Redeliver { settled: u8 },
    Pass { seconds: u8 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2usize, 0..3u8, 0..4usize).prop_map(|(object, commit, reason)| Step::Tell { object, commit, reason }),
        3 => any::<[bool; 2]>().prop_map(|objects| Step::Hook { objects }),
        5 => any::<bool>().prop_map(|probe| Step::Claim { probe }),
        5 => (any::<u8>(), any::<bool>(), 0..5u8)
            .prop_map(|(claim, deliver, retry)| Step::Settle { claim, deliver, retry }),
        1 => any::<u8>().prop_map(|claim| Step::Release { claim }),
        1 => any::<u8>().prop_map(|settled| Step::Redeliver { settled }),
        2 => (0..5u8).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Crash),
    ]
}

/// A lane by what it is about: an object and a commit, or an object's triggers.
type Subject = (String, Option<String>);

#[derive(Debug, Default)]
struct Lane {
    /// What was told to it last, and its rollout: the only thing that may be claimed.
    newest: Option<(Seq, Option<Seq>)>,
    /// The newest waits.
    waits: bool,
    /// What is in flight.
    in_flight: Option<Seq>,
}

struct Model<F> {
    world: World<F>,
    states: BTreeMap<String, ObjectState>,
    lanes: BTreeMap<Subject, Lane>,
    claims: Vec<Claim>,
    settled: Vec<(i64, Subject, (Seq, Option<Seq>))>,
    hooks: u64,
}

fn subject(claim: &Claim) -> Subject {
    let row = &claim.rows[0];
    match &row.what {
        What::Rollout { rollout, .. } => (row.object.name.clone(), rollout.commit.clone()),
        What::Trigger { .. } => (row.object.name.clone(), None),
        What::Event { .. } => panic!("{row:?}"),
    }
}

impl<F: Fixture> Model<F> {
    async fn step(mut self, step: &Step) -> Self {
        match *step {
            Step::Tell { object, commit, reason } => {
                self.tell(OBJECTS[object], char::from(b'a' + commit), REASONS[reason]).await;
            }
            Step::Hook { objects } => self.hook(objects).await,
            Step::Claim { probe } => self.claim(probe).await,
            Step::Settle { claim, deliver, retry } if !self.claims.is_empty() => {
                let claim = self.claims.remove(usize::from(claim) % self.claims.len());
                self.settle(&claim, deliver, retry).await;
            }
            Step::Release { claim } if !self.claims.is_empty() => {
                let claim = self.claims.remove(usize::from(claim) % self.claims.len());
                self.world.store.release(claim.lane);
                self.world.store.flush().await;
                // The older of two that wait then isn't claimed any more, but ends with the next finish.
                self.freed(&claim, true);
            }
            Step::Redeliver { settled } if !self.settled.is_empty() => {
                let (id, subject, what) = self.settled[usize::from(settled) % self.settled.len()].clone();
                self.world.store.redeliver(id).await.unwrap();
                let lane = self.lanes.entry(subject).or_default();
                (lane.newest, lane.waits) = (Some(what), true);
            }
            Step::Pass { seconds } => self.world.pass(Duration::from_secs(seconds.into())),
            Step::Crash => {
                self.world = self.world.crash();
                for claim in std::mem::take(&mut self.claims) {
                    self.freed(&claim, true);
                }
            }
            _ => {}
        }
        self
    }

    /// A lane is free again; `waits`: what was in flight waits as before.
    fn freed(&mut self, claim: &Claim, waits: bool) {
        let lane = self.lanes.get_mut(&subject(claim)).unwrap();
        lane.in_flight = None;
        lane.waits |= waits;
    }

    async fn tell(&mut self, object: &str, letter: char, reason: &str) {
        self.world.pass(Duration::from_secs(1));
        let routes = vec![status("git", 2)];
        let candidate = Candidate { routes, ..report(self.world.now(), object, reason, letter) };
        let Appended::Stored { seq, deliveries, .. } = self.world.append(candidate.clone()).await else {
            panic!("no two are alike")
        };
        let state = self.states.entry(object.to_owned()).or_default();
        let Plan::Store(stored) = plan(state, Seen::default(), &candidate, Duration::ZERO, seq) else { panic!() };
        assert_eq!(stored.deliveries.len(), deliveries as usize);
        if let Some(next) = stored.state {
            *state = (*next).clone();
        }
        for told in stored.deliveries {
            let rollout = &stored.rollouts[told.rollout.unwrap()];
            let lane = self.lanes.entry((object.to_owned(), rollout.commit.clone())).or_default();
            (lane.newest, lane.waits) = (Some((seq, Some(rollout.id))), true);
        }
    }

    async fn hook(&mut self, objects: [bool; 2]) {
        let chosen: Vec<&str> =
            OBJECTS.into_iter().zip(objects).filter(|(_, chosen)| *chosen).map(|(name, _)| name).collect();
        self.hooks += 1;
        let hook = Hook {
            receiver: ConfigKey::receiver("flux-system", "github").into(),
            at: self.world.now(),
            delivery_id: Some(self.hooks.to_string()),
            verdict: HookVerdict::Accepted,
            reason: String::new(),
            event: String::new(),
            bytes: 0,
            triggers: chosen.iter().map(|name| TriggerRef { object: kustomization(name) }).collect(),
        };
        let hooked = self.world.store.hook(hook).await.unwrap();
        let mut new = 0;
        for name in &chosen {
            let lane = self.lanes.entry(((*name).to_owned(), None)).or_default();
            if !lane.waits {
                (lane.newest, lane.waits) = (Some((hooked.seq, None)), true);
                new += 1;
            }
        }
        assert_eq!((hooked.new, hooked.merged, hooked.repeat_of), (new, chosen.len() as u32 - new, None));
    }

    async fn dests(&self) -> BTreeSet<DestId> {
        self.world.store.dests().await.unwrap().iter().map(|(id, ..)| *id).collect()
    }

    async fn claim(&mut self, probe: bool) {
        let rooms = self.dests().await.into_iter().map(|dest| (dest, Room { lanes: 32, probe })).collect();
        for claim in self.world.store.claim(rooms).await.unwrap().lanes {
            let lane = self.lanes.get_mut(&subject(&claim)).unwrap();
            assert_eq!((claim.rows.len(), lane.in_flight, lane.waits), (1, None, true));
            let row = &claim.rows[0];
            let rollout = if let What::Rollout { rollout, .. } = &row.what { Some(rollout) } else { None };
            assert_eq!(Some((row.cause, rollout.map(|rollout| rollout.id))), lane.newest);
            if let Some(rollout) = rollout {
                // The rollout as it is, not as it was when this was put in line.
                let now = self.states[&row.object.name].rollouts.rollout(rollout.id);
                assert!(now.is_none_or(|now| (now.state, &now.reason) == (rollout.state, &rollout.reason)));
            }
            (lane.in_flight, lane.waits) = (Some(row.cause), false);
            self.claims.push(claim);
        }
        if probe {
            let left = self.lanes.values().filter(|lane| lane.waits && lane.in_flight.is_none()).count();
            assert_eq!(left, 0, "a probe takes what isn't due yet");
        }
    }

    async fn settle(&mut self, claim: &Claim, deliver: bool, retry: u8) {
        let now = self.world.now();
        let state = if deliver { RowState::Delivered } else { RowState::Retry };
        let due = (!deliver).then(|| now.after(Duration::from_secs(retry.into())));
        let finish = Some(Finish { due, ..Finish::default() });
        let results = settlement(claim, now, &state, None).results;
        self.world.store.settle(Settlement { lane: claim.lane, dest: claim.dest, results, finish });
        self.world.store.flush().await;
        // Waits again only if nothing newer came meanwhile.
        let newer = self.lanes[&subject(claim)].waits;
        self.freed(claim, !deliver);
        if deliver || newer {
            let row = &claim.rows[0];
            let rollout = if let What::Rollout { rollout, .. } = &row.what { Some(rollout.id) } else { None };
            self.settled.push((row.id, subject(claim), (row.cause, rollout)));
        }
    }

    async fn end(mut self) {
        for (object, state) in &self.states {
            let kept = self.world.store.object_state(&kustomization(object)).await.unwrap();
            assert_eq!(kept.as_ref(), Some(state));
        }
        self.world = self.world.crash();
        for claim in std::mem::take(&mut self.claims) {
            self.freed(&claim, true);
        }
        self.world.pass(Duration::from_secs(3600));
        self.claim(false).await;
        assert!(self.lanes.values().all(|lane| !lane.waits), "{:?}", self.lanes);
        for claim in std::mem::take(&mut self.claims) {
            self.settle(&claim, true, 0).await;
        }
        assert!(self.world.store.dests().await.unwrap().is_empty());
        assert!(self.world.store.stats().pending.is_empty());
        let page = self.world.store.deliveries(DeliveryQuery::default()).await.unwrap();
        assert!(page.items.iter().all(|row| row.settled.is_some()));
    }
}

pub fn run<F: Fixture>() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(step(), 1..60), |steps| {
            runtime.block_on(async {
                let mut model = Model {
                    world: World::<F>::new(),
                    states: BTreeMap::new(),
                    lanes: BTreeMap::new(),
                    claims: Vec::new(),
                    settled: Vec::new(),
                    hooks: 0,
                };
                for step in &steps {
                    model = model.step(step).await;
                }
                model.end().await;
            });
            Ok(())
        })
        .unwrap();
}
