//! A cache of values that grow after they were added.

use std::{convert::Infallible, hash::Hash, sync::Arc, time::Duration};

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, EntryAction},
};

/// The number of pieces, with a lock each, into which a cache is divided at most.
const PIECES: usize = 16;

/// The part of its cache that one value counts for at most: a fourth of a piece. A piece would not keep a larger value
/// than itself: a large room's would then be read again for each request.
const LARGEST: u64 = 4 * PIECES as u64;

/// Values by key, limited by their bytes. Values that were not used lately are evicted first.
pub struct GrowingCache<K, V> {
    held: Cache<K, Held<V>, ByBytes>,
    largest: u64,
}

struct Held<V> {
    value: Arc<V>,
    bytes: u64,
}

impl<V> Clone for Held<V> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), bytes: self.bytes }
    }
}

#[derive(Clone)]
struct ByBytes;

impl<K, V> Weighter<K, Held<V>> for ByBytes {
    fn weight(&self, _: &K, held: &Held<V>) -> u64 {
        held.bytes
    }
}

impl<K: Hash + Eq + Clone, V: Default> GrowingCache<K, V> {
    /// A cache of `bytes`, into which about `values` values fit.
    pub fn new(bytes: u64, values: usize) -> Self {
        let mut options = OptionsBuilder::new();
        options.shards(PIECES).estimated_items_capacity(values).weight_capacity(bytes);
        let options = options.build().expect("both capacities are given");
        let held = Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { held, largest: (bytes / LARGEST).max(1) }
    }

    /// The value of `key`; a new one of `bytes` if there is none.
    pub fn get_or_default(&self, key: &K, bytes: u64) -> Arc<V> {
        let bytes = bytes.min(self.largest);
        let new = || Ok::<_, Infallible>(Held { value: Arc::default(), bytes });
        let Ok(held) = self.held.get_or_insert_with(key, new);
        held.value
    }

    /// The value of `key`, which counts as used.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.held.get(key).map(|held| held.value)
    }

    /// The value of `key`, which does not count as used.
    pub fn peek(&self, key: &K) -> Option<Arc<V>> {
        self.held.peek(key).map(|held| held.value)
    }

    /// Records that `value` has `bytes` now, if it is still the one in the cache. A value that was evicted stays out: its
    /// successor may know more.
    pub fn has_grown(&self, key: &K, value: &Arc<V>, bytes: u64) {
        let bytes = bytes.min(self.largest);
        let _ = self.held.entry(key, Some(Duration::ZERO), |_, held| {
            if Arc::ptr_eq(&held.value, value) {
                held.bytes = bytes;
            }
            EntryAction::Retain(())
        });
    }

    pub fn remove(&self, key: &K) {
        self.held.remove(key);
    }

    pub fn clear(&self) {
        self.held.clear();
    }

    /// All values, which do not count as used.
    pub fn iter(&self) -> impl Iterator<Item = (K, Arc<V>)> {
        self.held.iter().map(|(key, held)| (key, held.value))
    }

    /// The bytes of all values.
    pub fn bytes(&self) -> u64 {
        self.held.weight()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_value_counts_with_its_present_size() {
        let cache: GrowingCache<u32, Mutex<Vec<u8>>> = GrowingCache::new(64_000, 100);
        let value = cache.get_or_default(&1, 100);
        assert_eq!(cache.bytes(), 100);
        cache.has_grown(&1, &value, 700);
        assert_eq!(cache.bytes(), 700);
        cache.has_grown(&1, &value, 1_000_000);
        assert_eq!(cache.bytes(), 1_000, "it counts as a 64th of the cache, and stays");
        assert!(cache.get(&1).is_some());
    }

    #[test]
    fn a_value_that_was_evicted_does_not_replace_its_successor() {
        let cache: GrowingCache<u32, Mutex<Vec<u8>>> = GrowingCache::new(64_000, 100);
        let old = cache.get_or_default(&1, 100);
        cache.has_grown(&2, &old, 100);
        assert!(cache.peek(&2).is_none(), "a value that is not in the cache is not added");
        cache.remove(&1);
        let new = cache.get_or_default(&1, 50);
        cache.has_grown(&1, &old, 900);
        assert!(Arc::ptr_eq(&cache.get(&1).expect("it was added"), &new));
        assert_eq!(cache.bytes(), 50);
    }

    #[test]
    fn many_values_stay_within_the_cache() {
        let cache: GrowingCache<u32, Mutex<Vec<u8>>> = GrowingCache::new(64_000, 1_000);
        for key in 0..1_000 {
            let value = cache.get_or_default(&key, 10);
            cache.has_grown(&key, &value, 500);
        }
        assert!((32_000..=64_000).contains(&cache.bytes()), "{}", cache.bytes());
    }
}
