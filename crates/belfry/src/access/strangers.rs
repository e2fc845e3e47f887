//! Those who come with a wrong credential: how often from one address, and what is said of them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::Hash;
use crate::{dispatcher::now, receivers::Limiter};

/// Failures of one address: so many at once, then one each time.
const BURST: u32 = 20;
const EVERY: Duration = Duration::from_secs(3);
/// Addresses that are told apart; those beyond count as one.
const ADDRESSES: usize = 4096;
/// Tokens that were good lately.
const KNOWN: usize = 1024;
const LATELY: Duration = Duration::from_secs(3600);

/// What is known of failures.
pub(super) struct Strangers {
    /// For each address, when it will have none counted against it any more.
    addresses: Mutex<HashMap<IpAddr, Instant>>,
    /// Who comes through a proxy shares its address with whoever else does, and must not pay for their failures.
    known: Mutex<HashMap<Hash, Instant>>,
    log: Limiter,
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self { addresses: Mutex::default(), known: Mutex::default(), log: Limiter::every(Duration::from_secs(1), 10) }
    }

    /// Counts a failure. The error is how long it takes until one is free again.
    pub(super) fn failed(&self, peer: IpAddr, why: &str) -> Result<(), Duration> {
        let counted = self.count(peer, Instant::now());
        if counted.is_ok() && self.log.take(now()).is_ok() {
            tracing::warn!(%peer, why, "refused a request to the API");
        }
        counted
    }

    fn count(&self, peer: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = network(peer);
        if addresses.len() >= ADDRESSES && !addresses.contains_key(&key) {
            addresses.retain(|_, until| *until > now);
            if addresses.len() >= ADDRESSES {
                key = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
            }
        }
        let until = addresses.entry(key).or_insert(now);
        let next = (*until).max(now) + EVERY;
        match next.checked_duration_since(now + EVERY * BURST) {
            Some(over) if !over.is_zero() => Err(over),
            _ => {
                *until = next;
                Ok(())
            }
        }
    }

    /// How long an address has to wait before it is worth asking the API server about a token that it brings.
    pub(super) fn wait(&self, peer: IpAddr, token: &Hash, now: Instant) -> Option<Duration> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(token).copied();
        if known.is_some_and(|at| now - at < LATELY) {
            return None;
        }
        self.over(peer, now)
    }

    /// How long it takes until an address may fail again.
    pub(super) fn over(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (*addresses.get(&network(peer))? + EVERY).checked_duration_since(now + EVERY * BURST);
        over.filter(|over| !over.is_zero())
    }

    /// Remembers whether a token is good.
    pub(super) fn learn(&self, token: Hash, good: bool, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !good {
            known.remove(&token);
            return;
        }
        if known.len() >= KNOWN
            && !known.contains_key(&token)
            && let Some(oldest) = known.iter().min_by_key(|(_, at)| **at).map(|(token, _)| *token)
        {
            known.remove(&oldest);
        }
        known.insert(token, now);
    }
}

/// Who has one IPv6 address has a whole network of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_slowed_down_and_no_other() {
        let (strangers, now) = (Strangers::new(), Instant::now());
        let later = now + EVERY;
        let fail = |peer: &str, now| strangers.count(address(peer), now);
        assert_eq!((0..50).filter(|_| fail("10.0.0.1", now).is_ok()).count(), 20);
        assert_eq!(fail("10.0.0.1", now), Err(EVERY));
        assert!(fail("10.0.0.2", now).is_ok());
        let wait = |peer: &str, token: u8, now| strangers.wait(address(peer), &[token; 32], now);
        assert_eq!(wait("10.0.0.1", 1, now), Some(EVERY));
        assert_eq!(wait("::ffff:10.0.0.1", 1, now), Some(EVERY));
        assert_eq!(wait("10.0.0.2", 1, now), None);
        assert_eq!(wait("10.0.0.3", 1, now), None);
        // What was good lately is asked about all the same, until it isn't good any more.
        strangers.learn([2; 32], true, now);
        assert_eq!(wait("10.0.0.1", 2, now), None);
        strangers.learn([2; 32], false, now);
        assert_eq!(wait("10.0.0.1", 2, now), Some(EVERY));
        assert_eq!(wait("10.0.0.1", 1, later), None);
        assert!(fail("10.0.0.1", later).is_ok() && fail("10.0.0.1", later).is_err());
    }

    #[test]
    fn a_whole_network_counts_as_one_and_memory_is_bounded() {
        let (strangers, now) = (Strangers::new(), Instant::now());
        let failures = (0..50u16).filter(|n| strangers.count(address(&format!("2001:db8::{n:x}")), now).is_ok());
        assert_eq!(failures.count(), 20);
        for n in 0..2 * ADDRESSES as u32 {
            let _ = strangers.count(Ipv4Addr::from(n + 1).into(), now);
            strangers.learn(std::array::from_fn(|at| n.to_be_bytes()[at % 4]), true, now);
        }
        assert!(strangers.addresses.lock().unwrap().len() <= ADDRESSES + 1);
        assert_eq!(strangers.known.lock().unwrap().len(), KNOWN);
        assert!(strangers.count(address("10.9.9.9"), now + EVERY * BURST).is_ok());
        assert_eq!(strangers.addresses.lock().unwrap().len(), 1);
    }
}
