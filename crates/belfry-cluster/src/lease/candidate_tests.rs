//! Elections of several candidates, in a world where requests are lost, late, and done though nobody hears of it.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// The unit of the simulation.
const TICK: Duration = Duration::from_millis(100);
/// Ticks after which a request is given up, as in the driver.
const PATIENCE: u32 = 50;
/// The time in which things go wrong, and the time after it in which one must lead.
const CHAOS: u32 = 1200;
const CALM: u32 = 700;

fn wall() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn spec(value: Value) -> Spec {
    serde_json::from_value(value).unwrap()
}

/// The Lease, as the API server keeps it.
#[derive(Default)]
struct Server {
    lease: Option<Record>,
    versions: u32,
}

impl Server {
    fn write(&mut self, value: Value) -> Answer {
        self.versions += 1;
        let record = Record { version: self.versions.to_string(), spec: spec(value) };
        self.lease = Some(record.clone());
        Answer::Record(record)
    }

    fn take(&mut self, request: Request) -> Answer {
        match (request, &self.lease) {
            (Request::Read, None) => Answer::Missing,
            (Request::Read, Some(record)) => Answer::Record(record.clone()),
            (Request::Create(spec), None) => self.write(spec),
            (Request::Replace(version, spec), Some(record)) if record.version == version => self.write(spec),
            (Request::Create(_) | Request::Replace(..), _) => Answer::Conflict,
        }
    }
}

/// What becomes of one request: the ticks until it is done and until that is known, and whether either is lost.
#[derive(Clone, Copy, Debug)]
struct Fate {
    there: u32,
    back: u32,
    lost: bool,
    unheard: bool,
    /// What happens besides: somebody labels the Lease.
    labels: bool,
    /// The candidate's pause afterwards.
    pause: u32,
}

const FINE: Fate = Fate { there: 0, back: 0, lost: false, unheard: false, labels: false, pause: 20 };

fn fate() -> impl Strategy<Value = Fate> {
    let delay = || prop_oneof![4 => 0u32..3, 1 => 0u32..120];
    let rarely = || prop::bool::weighted(0.15);
    (delay(), delay(), rarely(), rarely(), rarely(), prop_oneof![4 => 20u32..25, 1 => 20u32..300])
        .prop_map(|(there, back, lost, unheard, labels, pause)| Fate { there, back, lost, unheard, labels, pause })
}

struct Member {
    candidate: Candidate,
    fates: VecDeque<Fate>,
    /// The request under way: when it was sent, when its answer comes, and the answer.
    sent: Option<(u32, u32, Option<Answer>)>,
    wakes: u32,
    pause: u32,
}

/// A request that has yet to reach the server: it may do so after its sender gave it up.
struct Travelling {
    arrives: u32,
    member: usize,
    sent: u32,
    request: Request,
    fate: Fate,
}

struct World {
    start: Instant,
    now: u32,
    server: Server,
    members: Vec<Member>,
    travelling: Vec<Travelling>,
    /// How often each led, in turn.
    terms_led: usize,
    led: Option<usize>,
}

impl World {
    fn new(fates: Vec<Vec<Fate>>) -> Self {
        let member = |(index, fates): (usize, Vec<Fate>)| Member {
            candidate: Candidate::new(format!("candidate-{index}"), Terms::default()),
            fates: fates.into(),
            sent: None,
            wakes: 0,
            pause: FINE.pause,
        };
        let members = fates.into_iter().enumerate().map(member).collect();
        let server = Server::default();
        Self { start: Instant::now(), now: 0, server, members, travelling: Vec::new(), terms_led: 0, led: None }
    }

    fn at(&self, tick: u32) -> Instant {
        self.start + TICK * tick
    }

    /// The one that leads; there are never two.
    fn leader(&self) -> Option<usize> {
        let leaders: Vec<usize> =
            (0..self.members.len()).filter(|&index| self.members[index].candidate.leads(self.at(self.now))).collect();
        assert!(leaders.len() <= 1, "{leaders:?} lead at {}", self.now);
        leaders.first().copied()
    }

    fn step(&mut self) {
        self.now += 1;
        for index in 0..self.members.len() {
            self.deliver();
            self.act(index);
            let leader = self.leader();
            if leader.is_some() && leader != self.led {
                self.terms_led += 1;
                self.led = leader;
            }
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, travelling): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.travelling).into_iter().partition(|one| one.arrives <= now);
        self.travelling = travelling;
        for Travelling { member, sent, request, fate, .. } in arrived {
            let answer = self.server.take(request);
            if let (true, Some(lease)) = (fate.labels, &mut self.server.lease) {
                self.server.versions += 1;
                lease.version = self.server.versions.to_string();
            }
            match &mut self.members[member].sent {
                Some((when, comes, waiting)) if *when == sent && !fate.unheard => {
                    (*comes, *waiting) = (now + fate.back, Some(answer));
                }
                _ => {}
            }
        }
    }

    fn act(&mut self, index: usize) {
        let (now, at) = (self.now, |tick| self.start + TICK * tick);
        let member = &mut self.members[index];
        if let Some((sent, comes, answer)) = &mut member.sent {
            let answer = match answer.take() {
                Some(answer) if *comes <= now => answer,
                waiting if now - *sent < PATIENCE => {
                    *answer = waiting;
                    return;
                }
                _ => Answer::Unknown,
            };
            member.candidate.took(at(*sent), at(now), answer);
            member.sent = None;
            member.wakes = now + member.pause;
        }
        if member.candidate.next(wall()).is_none() && member.wakes <= now {
            member.candidate.wake(at(now));
        }
        if let Some(request) = member.candidate.next(Timestamp::UNIX_EPOCH + Duration::from_millis(now.into())) {
            let fate = member.fates.pop_front().filter(|_| now < CHAOS).unwrap_or(FINE);
            member.sent = Some((now, u32::MAX, None));
            member.pause = fate.pause;
            if !fate.lost {
                self.travelling.push(Travelling { arrives: now + fate.there, member: index, sent: now, request, fate });
            }
        }
    }
}

proptest! {
    #[test]
    fn never_two_lead_and_in_the_end_one_does(
        fates in proptest::collection::vec(proptest::collection::vec(fate(), 0..120), 2..4),
        removed in proptest::collection::vec(0..CHAOS, 0..2),
    ) {
        let mut world = World::new(fates);
        while world.now < CHAOS + CALM {
            world.step();
            // Somebody removes it. All know it by then: what a newcomer can't know, it can't mind.
            let known = world.members.iter().all(|member| member.candidate.known.is_some());
            if removed.contains(&world.now) && known && world.travelling.is_empty() {
                world.server.lease = None;
            }
        }
        prop_assert!(world.leader().is_some());
    }
}

#[test]
fn the_simulation_sees_leaders_come_and_go() {
    // The first is cut off for good after its third request; the second follows, and lets others in again.
    let cut = Fate { lost: true, ..FINE };
    let first = [FINE, FINE, FINE].into_iter().chain([cut; 400]).collect();
    let mut world = World::new(vec![first, vec![]]);
    let mut leaders = Vec::new();
    while world.now < CHAOS {
        world.step();
        let leader = world.leader();
        if leaders.last() != Some(&leader) {
            leaders.push(leader);
        }
    }
    assert_eq!(leaders, [None, Some(0), None, Some(1)]);
    assert_eq!(world.terms_led, 2);
}

fn seen(candidate: &mut Candidate, at: Instant, version: &str, holder: &str, seconds: i64) -> Option<Request> {
    candidate.wake(at);
    let spec = spec(json!({"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 4}));
    candidate.took(at, at, Answer::Record(Record { version: version.into(), spec }));
    candidate.next(wall())
}

#[test]
fn a_lease_is_taken_when_it_is_free() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    for (holder, seconds, version, after, taken) in [
        ("", 15, "1", 0, true),
        ("other", 15, "1", 0, false),
        ("other", 15, "1", 14, false),
        ("other", 15, "1", 15, true),
        // Labelled by somebody meanwhile.
        ("other", 15, "2", 15, true),
        // Renewed meanwhile; what counts is the spec.
        ("third", 15, "2", 15, false),
        // What was agreed on counts if it is longer, and nonsense doesn't.
        ("other", 60, "1", 59, false),
        ("other", 60, "1", 60, true),
        ("other", 0, "1", 14, false),
        ("other", -5, "1", 15, true),
    ] {
        let mut candidate = Candidate::new("me".into(), Terms::default());
        let first = if holder == "third" { "other" } else { holder };
        seen(&mut candidate, at(0), "1", first, seconds);
        let next = seen(&mut candidate, at(after), version, holder, seconds);
        match next {
            Some(Request::Replace(of, spec)) => {
                assert!(taken, "{holder} {seconds} {after}");
                assert_eq!(
                    (of.as_str(), &spec["holderIdentity"], &spec["leaseTransitions"]),
                    (version, &"me".into(), &5.into())
                );
            }
            None => assert!(!taken, "{holder} {seconds} {after}"),
            other => panic!("{other:?}"),
        }
        assert!(!candidate.leads(at(after)), "not before the write is taken");
    }
}

#[test]
fn a_leader_counts_from_before_its_request() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut candidate = Candidate::new("me".into(), Terms::default());
    candidate.took(at(0), at(1), Answer::Missing);
    let Some(Request::Create(spec)) = candidate.next(wall()) else { panic!("{candidate:?}") };
    let record =
        |version: &str, spec: Value| Answer::Record(Record { version: version.into(), spec: self::spec(spec) });
    let mine = spec.clone();
    candidate.took(at(1), at(5), record("1", spec));
    assert!(candidate.leads(at(5)) && candidate.leads(at(10)) && !candidate.leads(at(11)));

    // It renews without reading first, and keeps what tells since when it leads.
    candidate.wake(at(6));
    let Some(Request::Replace(version, spec)) = candidate.next(wall() + Duration::from_secs(6)) else { panic!() };
    assert_eq!(
        (version.as_str(), &spec["acquireTime"], &spec["leaseTransitions"]),
        ("1", &mine["acquireTime"], &0.into())
    );
    assert_ne!(spec["renewTime"], mine["renewTime"]);
    // Its version is an old one: it looks at once, once.
    candidate.took(at(6), at(6), Answer::Conflict);
    assert_eq!(candidate.next(wall()), Some(Request::Read));
    candidate.took(at(6), at(6), record("2", mine.clone()));
    candidate.took(at(6), at(6), Answer::Conflict);
    assert_eq!(candidate.next(wall()), None);
    assert!(candidate.leads(at(7)));

    // Another has it: at once it doesn't lead.
    seen(&mut candidate, at(7), "3", "other", 15);
    assert!(!candidate.leads(at(7)) && !candidate.is_mine());

    // An answer that never came changes nothing; what is read tells.
    let mut candidate = Candidate::new("me".into(), Terms::default());
    candidate.took(at(0), at(0), Answer::Missing);
    candidate.took(at(0), at(5), Answer::Unknown);
    assert!(!candidate.leads(at(5)));
    candidate.wake(at(7));
    candidate.took(at(7), at(7), record("1", mine));
    assert!(!candidate.leads(at(7)));
    assert!(matches!(candidate.next(wall()), Some(Request::Replace(..))));
}

#[test]
fn a_lease_that_was_removed_is_not_taken_from_under_its_holder() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut candidate = Candidate::new("me".into(), Terms::default());
    seen(&mut candidate, at(0), "1", "other", 15);
    // Counted from when it was missed first: it may have been renewed until then.
    for (seconds, expected) in [(9, false), (23, false), (24, true)] {
        candidate.wake(at(seconds));
        candidate.took(at(seconds), at(seconds), Answer::Missing);
        assert_eq!(matches!(candidate.next(wall()), Some(Request::Create(_))), expected, "{seconds}");
    }
}

#[test]
fn a_lease_that_is_let_go_is_free() {
    let start = Instant::now();
    let mut candidate = Candidate::new("me".into(), Terms::default());
    seen(&mut candidate, start, "1", "me", 15);
    let released = candidate.released(wall());
    let mut other = Candidate::new("other".into(), Terms::default());
    other.took(start, start, Answer::Record(Record { version: "2".into(), spec: spec(released) }));
    assert!(matches!(other.next(wall()), Some(Request::Replace(..))));
}
