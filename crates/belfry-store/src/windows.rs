//! The window for repeats: which event was the last under a repeat key, and the last with a body.

use std::{collections::VecDeque, time::Duration};

use belfry_core::{Seq, plan::Seen};
use foldhash::{HashMap, HashMapExt as _};

use crate::engine::{Remembered, RememberedHook};

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
        let (same_key, same_body) = (self.by_key.get(&dedupe), self.by_body.get(&body_hash));
        Seen { same_key: same_key.copied(), same_body: same_body.copied(), same_id: None }
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

/// Which delivery ids came to which Receiver lately. Bounded in time and number; the oldest go first.
#[derive(Debug)]
pub(crate) struct HookWindow {
    by_id: HashMap<(i64, String), Seq>,
    order: VecDeque<RememberedHook>,
    span: Duration,
    bound: usize,
}

impl HookWindow {
    pub fn new(span: Duration, bound: usize) -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new(), span, bound }
    }

    /// The webhook that had this id, if it came within the time before `now`.
    pub fn seen(&self, receiver: i64, delivery_id: &str, now: Seq) -> Option<Seq> {
        let seq = self.by_id.get(&(receiver, delivery_id.to_owned()))?;
        (now.time().since(seq.time()) < self.span).then_some(*seq)
    }

    /// Remembers one; they come in their order.
    pub fn add(&mut self, hook: RememberedHook) {
        let now = hook.seq.time();
        self.by_id.insert((hook.receiver, hook.delivery_id.clone()), hook.seq);
        self.order.push_back(hook);
        while self.order.len() > self.bound
            || self.order.front().is_some_and(|first| now.since(first.seq.time()) >= self.span)
        {
            let Some(RememberedHook { seq, receiver, delivery_id }) = self.order.pop_front() else { return };
            let key = (receiver, delivery_id);
            if self.by_id.get(&key) == Some(&seq) {
                self.by_id.remove(&key);
            }
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
        assert_eq!(windows.seen(7, 107), Seen { same_key: Some(Seq(5)), same_body: Some(Seq(5)), same_id: None });
        windows.add(event(15, 9));
        assert_eq!(windows.seen(7, 107), Seen::default());
        for seq in 16..20 {
            windows.add(event(seq, seq.cast_unsigned()));
        }
        assert_eq!(windows.order.len(), 3);
        assert_eq!(windows.seen(8, 108), Seen::default());
    }

    #[test]
    fn delivery_ids_are_forgotten_by_time_and_by_number() {
        let mut window = HookWindow::new(Duration::from_micros(10), 3);
        let hook = |seq, receiver, id: &str| RememberedHook { seq: Seq(seq), receiver, delivery_id: id.into() };
        window.add(hook(1, 1, "a"));
        assert_eq!(window.seen(1, "a", Seq(10)), Some(Seq(1)));
        assert_eq!(window.seen(1, "a", Seq(11)), None);
        assert_eq!(window.seen(2, "a", Seq(2)), None);
        for seq in 2..6 {
            window.add(hook(seq, 1, &seq.to_string()));
        }
        assert_eq!((window.order.len(), window.by_id.len()), (3, 3));
        assert_eq!(window.seen(1, "2", Seq(6)), None);
        window.add(hook(30, 1, "b"));
        assert_eq!((window.order.len(), window.by_id.len()), (1, 1));
    }
}
