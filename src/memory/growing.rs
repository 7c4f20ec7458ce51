//! A cache of values that grow after they were added.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use quick_cache::{
    DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

use super::cache::PIECES;

/// The part of its piece of the cache that one value counts for at most. A piece would not keep a larger value than
/// itself: a large room's would then be read again for each request.
const LARGEST_PART: u64 = 4;

/// Values by key, limited by their bytes. Values that were not used lately are evicted first.
pub struct GrowingCache<K, V> {
    held: Cache<K, Held<V>, ByBytes>,
    largest: u64,
    /// Held while a value is added or counted anew, so that no value takes the place of its successor.
    changes: Mutex<()>,
}

struct Held<V> {
    value: Arc<V>,
    bytes: u64,
}

/// The values that a change has evicted. They are dropped after the locks.
type Evicted<K, V> = <DefaultLifecycle<K, Held<V>> as Lifecycle<K, Held<V>>>::RequestState;

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
        let largest = (held.shard_capacity() / LARGEST_PART).max(1);
        Self { held, largest, changes: Mutex::default() }
    }

    /// The value of `key`; a new one of `bytes` if there is none.
    pub fn get_or_default(&self, key: &K, bytes: u64) -> Arc<V> {
        if let Some(held) = self.held.get(key) {
            return held.value;
        }
        let mut evicted = Evicted::<K, V>::default();
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = self.held.get(key) {
            return held.value;
        }
        let held = Held { value: Arc::default(), bytes: bytes.min(self.largest) };
        self.held.insert_with_lifecycle(key.clone(), held.clone(), &mut evicted);
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
    /// successor may know more. Others are evicted if all of them no longer fit.
    pub fn has_grown(&self, key: &K, value: &Arc<V>, bytes: u64) {
        let bytes = bytes.min(self.largest);
        let counts_otherwise = |held: Held<V>| Arc::ptr_eq(&held.value, value) && held.bytes != bytes;
        if !self.held.peek(key).is_some_and(counts_otherwise) {
            return;
        }
        let mut evicted = Evicted::<K, V>::default();
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.held.peek(key).is_some_and(counts_otherwise) {
            let held = Held { value: Arc::clone(value), bytes };
            // Fails only if it was removed meanwhile. Then it stays out.
            let _ = self.held.replace_with_lifecycle(key.clone(), held, false, &mut evicted);
        }
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_value_counts_with_its_present_size() {
        let cache: GrowingCache<u32, Mutex<Vec<u8>>> = GrowingCache::new(64_000, 1_000);
        let value = cache.get_or_default(&1, 100);
        assert_eq!(cache.bytes(), 100);
        cache.has_grown(&1, &value, 700);
        assert_eq!(cache.bytes(), 700);
        cache.has_grown(&1, &value, 1_000_000);
        assert_eq!(cache.bytes(), 1_000, "it counts as a fourth of one of 16 pieces, and stays");
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

    #[test]
    fn values_that_grow_evict_others_although_none_is_added() {
        let cache: GrowingCache<u32, Mutex<Vec<u8>>> = GrowingCache::new(64_000, 1_000);
        let values: Vec<_> = (0..1_000).map(|key| (key, cache.get_or_default(&key, 10))).collect();
        assert_eq!(cache.bytes(), 10_000);
        for (key, value) in &values {
            cache.has_grown(key, value, 900);
            assert!(cache.bytes() <= 64_000, "{} bytes", cache.bytes());
        }
        assert!(cache.bytes() >= 32_000, "{} bytes", cache.bytes());
    }

    #[test]
    fn a_value_that_grows_while_it_is_removed_does_not_come_back() {
        let cache: GrowingCache<u32, Mutex<bool>> = GrowingCache::new(64_000, 1_000);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for bytes in (1..100).cycle() {
                    let value = cache.get_or_default(&1, 10);
                    cache.has_grown(&1, &value, bytes);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            for round in 0..20_000 {
                let value = cache.get_or_default(&1, 10);
                *value.lock().expect("nobody panics") = true;
                cache.remove(&1);
                let is_old = *cache.get_or_default(&1, 10).lock().expect("nobody panics");
                // The other thread must end before this one may panic.
                is_over.store(is_old || round == 19_999, Ordering::Relaxed);
                assert!(!is_old, "round {round}");
            }
        });
    }
}
