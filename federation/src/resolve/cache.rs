//! Results of resolutions, kept by the states that were resolved.
//!
//! Equal states meet again and again: each event whose previous events are the same branches has the same state
//! before it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{held::StateDelta, state_log::StateHash};

/// The states of a resolution, in any order.
///
/// Whether events were rejected is part of the answer too, so a result holds only until the room rejects other events.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ResolutionKey {
    hashes: Box<[[u8; 16]]>,
    reject_epoch: i64,
}

impl ResolutionKey {
    /// `reject_epoch`: the number of times that the room changed which of its stored events are rejected.
    pub fn new(states: impl IntoIterator<Item = StateHash>, reject_epoch: i64) -> Self {
        let mut hashes: Vec<[u8; 16]> = states.into_iter().map(StateHash::to_bytes).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self { hashes: hashes.into(), reject_epoch }
    }

    /// The state to which the kept result is the difference. `None`: there are no states.
    pub fn first(&self) -> Option<StateHash> {
        self.hashes.first().copied().map(StateHash::from_bytes)
    }

    fn bytes(&self) -> u64 {
        (size_of::<Self>() + size_of_val(&*self.hashes)) as u64
    }
}

/// The results of resolutions that were asked for last, limited by their bytes.
///
/// A result is the difference of the resolved state to the state of [`ResolutionKey::first`], so that it does not depend on
/// a position of the log: [`Resolved::against`](super::Resolved::against) makes it.
#[derive(Debug)]
pub struct Resolutions {
    most_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default, Debug)]
struct Kept {
    results: BTreeMap<Arc<ResolutionKey>, Result>,
    /// The keys in the order of their last use.
    by_use: BTreeMap<u64, Arc<ResolutionKey>>,
    uses: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Result {
    delta: Arc<StateDelta>,
    last_use: u64,
}

/// The memory of a result beside its key and its delta: its places in both maps, half of which are empty.
const PLACES_BYTES: u64 = 2 * (size_of::<Result>() + size_of::<u64>() + 2 * size_of::<Arc<ResolutionKey>>()) as u64;

impl Resolutions {
    /// Keeps results that take about this memory. A result that takes more by itself is not kept.
    pub fn new(most_bytes: u64) -> Self {
        Self { most_bytes, kept: Mutex::default() }
    }

    /// The difference of the resolved state to the first state of the key.
    pub fn get(&self, key: &ResolutionKey) -> Option<Arc<StateDelta>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    /// Keeps a result.
    pub fn put(&self, key: ResolutionKey, delta: Arc<StateDelta>) {
        if bytes_of(&key, &delta) > self.most_bytes {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.put(Arc::new(key), delta);
        while kept.bytes > self.most_bytes && kept.drop_oldest() {}
    }

    /// The approximate memory of the results in bytes.
    pub fn bytes(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).bytes
    }
}

impl Kept {
    fn get(&mut self, key: &ResolutionKey) -> Option<Arc<StateDelta>> {
        self.uses += 1;
        let result = self.results.get_mut(key)?;
        let key = self.by_use.remove(&result.last_use)?;
        result.last_use = self.uses;
        self.by_use.insert(self.uses, key);
        Some(Arc::clone(&result.delta))
    }

    fn put(&mut self, key: Arc<ResolutionKey>, delta: Arc<StateDelta>) {
        self.drop(&key);
        self.uses += 1;
        self.bytes += bytes_of(&key, &delta);
        self.by_use.insert(self.uses, Arc::clone(&key));
        self.results.insert(key, Result { delta, last_use: self.uses });
    }

    fn drop(&mut self, key: &ResolutionKey) {
        if let Some(result) = self.results.remove(key) {
            self.by_use.remove(&result.last_use);
            self.bytes -= bytes_of(key, &result.delta);
        }
    }

    /// Returns whether there was one.
    fn drop_oldest(&mut self) -> bool {
        let oldest = self.by_use.first_key_value().map(|(_, key)| Arc::clone(key));
        if let Some(key) = &oldest {
            self.drop(key);
        }
        oldest.is_some()
    }
}

fn bytes_of(key: &ResolutionKey, delta: &StateDelta) -> u64 {
    PLACES_BYTES + key.bytes() + delta.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::KeyNid;

    fn hash(number: u8) -> StateHash {
        StateHash::from_bytes([number; 16])
    }

    fn key(numbers: &[u8]) -> ResolutionKey {
        ResolutionKey::new(numbers.iter().copied().map(hash), 0)
    }

    fn delta(keys: i64) -> Arc<StateDelta> {
        Arc::new((0..keys).map(|key| (KeyNid(key), None)).collect())
    }

    #[test]
    fn the_order_of_the_states_does_not_matter_and_the_epoch_of_rejections_does() {
        let cache = Resolutions::new(1_000_000);
        cache.put(key(&[3, 1, 2]), delta(5));
        for same in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            assert_eq!(cache.get(&key(&same)), Some(delta(5)));
            assert_eq!(key(&same).first(), Some(hash(1)));
        }
        assert_eq!(cache.get(&key(&[2, 1, 3, 2])), Some(delta(5)), "a state is given twice");
        assert_eq!(cache.get(&key(&[1, 2])), None);
        assert_eq!(cache.get(&ResolutionKey::new([1, 2, 3].map(hash), 1)), None);
        assert_eq!(key(&[]).first(), None);
    }

    #[test]
    fn the_results_that_were_not_used_are_dropped_first() {
        let one = bytes_of(&key(&[1, 2]), &delta(100));
        let cache = Resolutions::new(3 * one);
        for second in [2, 3, 4] {
            cache.put(key(&[1, second]), delta(100));
        }
        assert_eq!(cache.bytes(), 3 * one);
        cache.get(&key(&[1, 2]));
        cache.put(key(&[1, 5]), delta(100));
        let kept = [2, 3, 4, 5].map(|second| cache.get(&key(&[1, second])).is_some());
        assert_eq!((kept, cache.bytes()), ([true, false, true, true], 3 * one));

        // A result that is put again counts once.
        cache.put(key(&[1, 5]), delta(100));
        assert_eq!(cache.bytes(), 3 * one);
        // A larger one takes the place of several, and one that is too large that of none.
        cache.put(key(&[1, 6]), delta(200));
        assert!(cache.get(&key(&[1, 6])).is_some() && cache.bytes() <= 3 * one);
        let before = cache.bytes();
        cache.put(key(&[1, 7]), delta(1_000));
        assert_eq!((cache.get(&key(&[1, 7])), cache.bytes()), (None, before));
    }
}
