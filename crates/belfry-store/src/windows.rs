//! The window for repeats: which event was the last under a repeat key, and the last with a body.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use belfry_core::{Seq, plan::Seen};

use crate::engine::Remembered;

/// Bounded in time and number; the oldest go first.
#[derive(Debug)]
pub(crate) struct Windows {
    by_key: HashMap<u64, Seq>,
    by_body: HashMap<u64, Seq>,
    order: VecDeque<Remembered>,
    span: Duration,
    bound: usize,
}

impl Windows {
    pub fn new(span: Duration, bound: usize) -> Self {
        Self { by_key: HashMap::new(), by_body: HashMap::new(), order: VecDeque::new(), span, bound }
    }

    pub fn seen(&self, dedupe: u64, body_hash: u64) -> Seen {
        Seen { same_key: self.by_key.get(&dedupe).copied(), same_body: self.by_body.get(&body_hash).copied() }
    }

    /// Remembers an event; they come in the order of the log.
    pub fn add(&mut self, event: Remembered) {
        self.by_key.insert(event.dedupe, event.seq);
        self.by_body.insert(event.body_hash, event.seq);
        self.order.push_back(event);
        while let Some(first) = self.order.front()
            && (self.order.len() > self.bound || event.seq.time().since(first.seq.time()) >= self.span)
        {
            let Remembered { seq, dedupe, body_hash } = *first;
            self.order.pop_front();
            forget(&mut self.by_key, dedupe, seq);
            forget(&mut self.by_body, body_hash, seq);
        }
    }
}

fn forget(map: &mut HashMap<u64, Seq>, hash: u64, seq: Seq) {
    if map.get(&hash) == Some(&seq) {
        map.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, dedupe: u64) -> Remembered {
        Remembered { seq: Seq(seq), dedupe, body_hash: dedupe + 100 }
    }

    #[test]
    fn forgets_by_time_and_by_number_but_never_the_latest_of_a_key() {
        let mut windows = Windows::new(Duration::from_micros(10), 3);
        windows.add(event(1, 7));
        windows.add(event(5, 7));
        windows.add(event(11, 8));
        assert_eq!(windows.seen(7, 107), Seen { same_key: Some(Seq(5)), same_body: Some(Seq(5)) });
        windows.add(event(15, 9));
        assert_eq!(windows.seen(7, 107), Seen::default());
        for seq in 16..20 {
            windows.add(event(seq, seq.cast_unsigned()));
        }
        assert_eq!(windows.order.len(), 3);
        assert_eq!(windows.seen(8, 108), Seen::default());
    }
}
