//! How many calls may be open at a time: on the machine, per account, and per run.
//!
//! At a bound the newcomer is turned away at once; what is already being served is never touched. So a flood of one
//! run, or of one account, delays only itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is open under keys; each key has the same bound.
#[derive(Debug)]
pub struct Places<K: Ord> {
    open: Mutex<(BTreeMap<K, usize>, usize)>,
    per_key_max: usize,
    all_max: usize,
}

/// One open place; it is free again when this is dropped.
#[derive(Debug)]
pub struct Taken<K: Ord + Clone> {
    places: Arc<Places<K>>,
    key: K,
}

impl<K: Ord + Clone> Places<K> {
    /// So many per key and in all.
    #[must_use]
    pub fn new(per_key_max: usize, all_max: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::new((BTreeMap::new(), 0)), per_key_max, all_max })
    }

    /// Takes a place; `None` at a bound.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Taken<K>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 >= self.all_max {
            return None;
        }
        let count = open.0.entry(key.clone()).or_insert(0);
        if *count >= self.per_key_max {
            return None;
        }
        *count += 1;
        open.1 += 1;
        Some(Taken { places: Arc::clone(self), key })
    }

    /// How many are open in all.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl<K: Ord + Clone> Drop for Taken<K> {
    fn drop(&mut self) {
        let mut open = self.places.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.1 = open.1.saturating_sub(1);
        if let Some(count) = open.0.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.0.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_cannot_take_the_place_of_another() {
        let places = Places::new(2, 3);
        let first = places.take(1).expect("room");
        let _second = places.take(1).expect("room");
        assert!(places.take(1).is_none(), "the key's own bound");
        let _third = places.take(2).expect("another key has room");
        assert!(places.take(3).is_none(), "the bound of all");
        drop(first);
        assert!(places.take(3).is_some());
    }
}
