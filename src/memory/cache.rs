//! Caches that are limited by the bytes of their values.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};

/// The number of pieces, with a lock each, into which a cache is divided at most. A value must fit into one piece, on a
/// machine with many cores too.
pub(super) const PIECES: usize = 16;

/// A value that knows about how much memory it takes.
pub trait HasBytes {
    /// The approximate memory in bytes, with the value's place in the cache. Never 0: such a value would not be evicted.
    fn bytes(&self) -> u64;
}

impl<T: HasBytes> HasBytes for Arc<T> {
    fn bytes(&self) -> u64 {
        T::bytes(self)
    }
}

/// Values by key, limited by their bytes. Values that were not used lately are evicted first.
pub type ByteCache<K, V> = Cache<K, V, ByBytes>;

/// Weighs values by their bytes.
#[derive(Debug, Clone)]
pub struct ByBytes;

impl<K, V: HasBytes> Weighter<K, V> for ByBytes {
    fn weight(&self, _: &K, value: &V) -> u64 {
        value.bytes()
    }
}
