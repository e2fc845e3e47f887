//! Random work against a model of a few lines: nothing that was accepted is lost or made twice without need, and every
//! lane goes in order.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use belfry_core::{Seq, Time, limits};
use belfry_store::{
    AttemptOutcome, AttemptRecord, Claim, DeliveryQuery, DestId, Finish, Room, RowResult, RowState, Settlement,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{Fixture, World, event};

const PROVIDERS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Step {
    Append {
        object: u8,
        providers: [bool; 2],
    },
    Claim {
        provider: u8,
        lanes: u8,
        probe: bool,
    },
    /// Of some claim: deliver so many, give one up perhaps, and try the rest again after so many seconds.
    Settle {
        claim: u8,
        deliver: u8,
        dead: bool,
        stream: bool,
        retry: u8,
    },
    Release {
        claim: u8,
    },
    Wake {
        provider: u8,
    },
    Redeliver {
        settled: u8,
    },
    Pass {
        seconds: u8,
    },
    Prune,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3u8, any::<[bool; 2]>()).prop_map(|(object, providers)| Step::Append { object, providers }),
        6 => (0..2u8, 1..4u8, prop::bool::weighted(0.2))
            .prop_map(|(provider, lanes, probe)| Step::Claim { provider, lanes, probe }),
        6 => (any::<u8>(), 0..20u8, any::<bool>(), any::<bool>(), 0..30u8)
            .prop_map(|(claim, deliver, dead, stream, retry)| Step::Settle { claim, deliver, dead, stream, retry }),
        1 => any::<u8>().prop_map(|claim| Step::Release { claim }),
        1 => (0..2u8).prop_map(|provider| Step::Wake { provider }),
        1 => any::<u8>().prop_map(|settled| Step::Redeliver { settled }),
        2 => (0..20u8).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Prune),
        1 => Just(Step::Crash),
    ]
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<(Seq, u32)>,
    due: Option<Time>,
    in_flight: bool,
}

struct Model<F> {
    world: World<F>,
    dests: BTreeMap<u8, DestId>,
    lanes: BTreeMap<(u8, String), Lane>,
    claims: Vec<(u8, Claim)>,
    settled: Vec<(u8, i64, String, Seq)>,
    events: u64,
}

impl<F: Fixture> Model<F> {
    async fn step(mut self, step: &Step) -> Self {
        let now = self.world.now();
        match *step {
            Step::Append { object, providers } => self.append(object, providers).await,
            Step::Claim { provider, lanes, probe } => self.claim(provider, u32::from(lanes), probe).await,
            Step::Settle { claim, deliver, dead, stream, retry } => {
                if !self.claims.is_empty() {
                    let (provider, claim) = self.claims.remove(usize::from(claim) % self.claims.len());
                    let due = (retry > 0).then(|| now.after(Duration::from_secs(retry.into())));
                    self.settle(provider, &claim, usize::from(deliver), dead, stream, due).await;
                }
            }
            Step::Release { claim } => {
                if !self.claims.is_empty() {
                    let (provider, claim) = self.claims.remove(usize::from(claim) % self.claims.len());
                    self.world.store.release(claim.lane);
                    self.world.store.flush().await;
                    self.lane(provider, &claim).in_flight = false;
                }
            }
            Step::Wake { provider } => {
                if let Some(dest) = self.dests.get(&provider) {
                    // What is in flight is left out, to keep the model small.
                    if self.claims.iter().all(|(of, _)| *of != provider) {
                        self.world.store.wake(*dest).await;
                        for lane in self.lanes.iter_mut().filter(|((of, _), _)| *of == provider).map(|(_, lane)| lane) {
                            lane.due = lane.due.map(|due| due.min(now));
                        }
                    }
                }
            }
            Step::Redeliver { settled } => {
                if !self.settled.is_empty() {
                    let (provider, id, object, seq) = self.settled[usize::from(settled) % self.settled.len()].clone();
                    self.world.store.redeliver(id).await.unwrap();
                    let lane = self.lanes.get_mut(&(provider, object)).unwrap();
                    lane.waiting.push_back((seq, 0));
                    lane.due.get_or_insert(now);
                }
            }
            Step::Pass { seconds } => self.world.pass(Duration::from_secs(seconds.into())),
            Step::Prune => {
                // Nothing is old, many or deleted: nothing may go.
                assert_eq!(self.world.store.prune().await.unwrap(), belfry_store::Pruned::default());
            }
            Step::Crash => {
                self.world = self.world.crash();
                self.claims.clear();
                self.lanes.values_mut().for_each(|lane| lane.in_flight = false);
            }
        }
        self
    }

    fn lane(&mut self, provider: u8, claim: &Claim) -> &mut Lane {
        self.lanes.get_mut(&(provider, claim.rows[0].object.name.clone())).unwrap()
    }

    async fn append(&mut self, object: u8, providers: [bool; 2]) {
        let (object, now) = (format!("app-{object}"), self.world.now());
        let chosen = (0..2u8).filter(|provider| providers[usize::from(*provider)]);
        let names: Vec<&str> = chosen.clone().map(|provider| PROVIDERS[usize::from(provider)]).collect();
        let seq = self.world.stored(event(self.events, &object, &names)).await;
        self.events += 1;
        for provider in chosen {
            let lane = self.lanes.entry((provider, object.clone())).or_default();
            lane.waiting.push_back((seq, 0));
            lane.due.get_or_insert(now);
            if !self.dests.contains_key(&provider) {
                self.dests.insert(provider, self.world.dest(PROVIDERS[usize::from(provider)]).await);
            }
        }
    }

    async fn claim(&mut self, provider: u8, room: u32, probe: bool) {
        let (Some(dest), now) = (self.dests.get(&provider).copied(), self.world.now()) else { return };
        let claims = self.world.store.claim(vec![(dest, Room { lanes: room, probe })]).await.unwrap();
        let waits = |lane: &Lane| !lane.in_flight && !lane.waiting.is_empty();
        let free = |(of, _): &(u8, String), lane: &Lane| *of == provider && waits(lane);
        let mut dues: Vec<Time> =
            self.lanes.iter().filter(|(key, lane)| free(key, lane)).map(|(_, lane)| lane.due.unwrap()).collect();
        dues.sort_unstable();
        let expected = dues.iter().filter(|due| probe || **due <= now).count().min(room as usize);
        assert_eq!(claims.lanes.len(), expected);
        let mut taken = Vec::new();
        for claim in claims.lanes {
            let lane = self.lane(provider, &claim);
            assert!(!lane.in_flight);
            lane.in_flight = true;
            taken.push(lane.due.unwrap());
            let rows: Vec<_> = claim.rows.iter().map(|row| (row.cause, row.attempts)).collect();
            let waiting: Vec<_> = lane.waiting.iter().copied().take(limits::LANE_CLAIM as usize).collect();
            assert_eq!(rows, waiting);
            self.claims.push((provider, claim));
        }
        taken.sort_unstable();
        assert_eq!(taken, dues[..expected]);
        assert_eq!(claims.next_due, [(dest, dues.get(expected).copied())]);
    }

    async fn settle(
        &mut self,
        provider: u8,
        claim: &Claim,
        deliver: usize,
        dead: bool,
        stream: bool,
        due: Option<Time>,
    ) {
        let now = self.world.now();
        let mut results = Vec::new();
        for (n, row) in claim.rows.iter().enumerate().take(deliver + 1) {
            let (state, outcome) = match n {
                n if n < deliver => (RowState::Delivered, AttemptOutcome::Delivered),
                _ if dead => (RowState::Dead("no".into()), AttemptOutcome::Rejected),
                _ => (RowState::Retry, AttemptOutcome::Retry),
            };
            let (n, took) = (row.attempts + 1, Duration::ZERO);
            let attempt = AttemptRecord { n, at: now, took, status: None, outcome, error: String::new() };
            results.push(RowResult { delivery: row.id, attempt: Some(attempt), state: state.clone() });
            let lane = self.lane(provider, claim);
            if state == RowState::Retry {
                lane.waiting[0].1 += 1;
            } else {
                lane.waiting.pop_front();
                self.settled.push((provider, row.id, row.object.name.clone(), row.cause));
            }
        }
        let (lane, dest) = (claim.lane, claim.dest);
        if stream {
            for result in results.drain(..) {
                self.world.store.settle(Settlement { lane, dest, results: vec![result], finish: None });
            }
        }
        let finish = Some(Finish { due, ..Finish::default() });
        self.world.store.settle(Settlement { lane, dest, results, finish });
        self.world.store.flush().await;
        let lane = self.lane(provider, claim);
        lane.in_flight = false;
        lane.due = (!lane.waiting.is_empty()).then(|| due.unwrap_or(now));
    }

    async fn end(mut self) {
        self.world = self.world.crash();
        self.world.pass(Duration::from_secs(3600));
        let counts = self.world.store.stats().pending;
        for (provider, dest) in &self.dests {
            let of_dest = self.lanes.iter().filter(|((of, _), _)| of == provider);
            let mut expected: Vec<Seq> =
                of_dest.flat_map(|(_, lane)| lane.waiting.iter().map(|(seq, _)| *seq)).collect();
            assert_eq!(counts.get(dest).map_or(0, |pending| pending.count), expected.len() as u64);
            let mut drained = self.world.drain(*dest).await;
            expected.sort_unstable();
            drained.sort_unstable();
            assert_eq!(drained, expected);
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
    let steps = prop::collection::vec(step(), 1..60);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(async {
                let mut model = Model {
                    world: World::<F>::new(),
                    dests: BTreeMap::new(),
                    lanes: BTreeMap::new(),
                    claims: Vec::new(),
                    settled: Vec::new(),
                    events: 0,
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
