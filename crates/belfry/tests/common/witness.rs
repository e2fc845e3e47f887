//! What a server says of itself beside what it does: `/readyz`, polled, and the answers that senders got.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::common::client;

/// The pause between two looks at a server.
const POLL: Duration = Duration::from_millis(100);

/// One answer, and while it was waited for. `good`: an event was taken in, or the server was ready.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub start: Instant,
    pub end: Instant,
    pub good: bool,
}

/// What one server answered.
#[derive(Default)]
pub struct Witness {
    said: Mutex<Vec<Answer>>,
    did: Mutex<Vec<Answer>>,
}

impl Witness {
    /// A sender was answered.
    pub fn answered(&self, start: Instant, good: bool) {
        self.did.lock().unwrap().push(Answer { start, end: Instant::now(), good });
    }

    /// Polls until it is done. What isn't answered says nothing.
    pub async fn watch(self: Arc<Self>, readyz: String, done: Arc<AtomicBool>) {
        let client = client();
        while !done.load(Relaxed) {
            let start = Instant::now();
            if let Ok(answer) = client.get(&readyz).send().await {
                let good = answer.status().as_u16() == 200;
                self.said.lock().unwrap().push(Answer { start, end: Instant::now(), good });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How often it was looked at, and how often it was not ready.
    pub fn looks(&self) -> (usize, usize) {
        let said = self.said.lock().unwrap();
        (said.len(), said.iter().filter(|answer| !answer.good).count())
    }

    /// Where it said one thing twice in a row, and did only the other before, in between and after.
    pub fn lies(&self) -> Vec<[Answer; 2]> {
        let mut did = self.did.lock().unwrap().clone();
        did.sort_by_key(|answer| answer.end);
        let said = self.said.lock().unwrap();
        let pairs = said.windows(2).filter(|pair| pair[0].good == pair[1].good);
        pairs.filter(|pair| contradicts(pair, &did)).map(|pair| [pair[0], pair[1]]).collect()
    }
}

/// `did` is in the order of the ends.
fn contradicts(said: &[Answer], did: &[Answer]) -> bool {
    let (from, to) = (said[0].start, said[1].end);
    let begun = did.partition_point(|answer| answer.end < from);
    let over = did.partition_point(|answer| answer.end <= to);
    let within = did[begun..over].iter().any(|answer| answer.start >= from);
    let after = did[over..].iter().position(|answer| answer.start >= to);
    let (Some(before), Some(after), true) = (begun.checked_sub(1), after, within) else { return false };
    // All that was under way in that time, too.
    did[before..=over + after].iter().all(|answer| answer.good != said[0].good)
}

#[test]
fn a_lie_is_what_all_answers_contradict() {
    let zero = Instant::now();
    let at = |tenths: u32, good| Answer { start: zero + POLL * tenths, end: zero + POLL * tenths + POLL / 2, good };
    let did = |all: &[(u32, bool)]| all.iter().map(|(tenths, good)| at(*tenths, *good)).collect::<Vec<_>>();
    let ready = [at(2, true), at(4, true)];
    assert!(contradicts(&ready, &did(&[(1, false), (3, false), (5, false)])));
    assert!(!contradicts(&ready, &did(&[(1, true), (3, false), (5, false)])), "it was no lie the first time");
    assert!(!contradicts(&ready, &did(&[(1, false), (3, true), (5, false)])));
    assert!(!contradicts(&ready, &did(&[(1, false), (3, false), (5, true)])), "nor the second");
    assert!(!contradicts(&ready, &did(&[(1, false), (5, false)])), "nobody asked in between");
    let unready = [at(2, false), at(4, false)];
    assert!(contradicts(&unready, &did(&[(0, false), (1, true), (3, true), (5, true), (6, false)])));
}
