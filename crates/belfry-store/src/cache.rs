//! A bounded map that forgets what hasn't been asked for lately.

use std::{borrow::Borrow, hash::Hash, mem};

use foldhash::{HashMap, HashMapExt as _};

/// Two generations: what is used moves to the young one; when that is half the bound, the old one is dropped.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Cache<K, V> {
    pub fn new(bound: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half: (bound / 2).max(1) }
    }

    pub fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if !self.young.contains_key(key)
            && let Some((key, value)) = self.old.remove_entry(key)
        {
            self.insert(key, value);
        }
        self.young.get(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Sets the value, cloning the key only when it is not there yet.
    pub fn put(&mut self, key: &K, value: V)
    where
        K: Clone,
    {
        match self.young.get_mut(key) {
            Some(slot) => *slot = value,
            None => {
                self.old.remove(key);
                self.insert(key.clone(), value);
            }
        }
    }

    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::new(4);
        for n in 0..10 {
            cache.put(&n, n);
            assert_eq!(cache.get(&0), Some(&0));
        }
        assert_eq!(cache.get(&1), None);
        assert!(cache.young.len() + cache.old.len() <= 4);
        cache.put(&0, 7);
        assert_eq!(cache.get(&0), Some(&7));
    }
}
