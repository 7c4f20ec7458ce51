//! The compiled filters that the cache or a sync holds.
//!
//! Promise: two syncs of a user with the same filter hold the same memory, also if the cache keeps the filter for
//! neither: it may be too large, or given with the request. A filter that nobody holds is not registered here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use sha2::{Digest as _, Sha256};

use super::SyncFilter;
use crate::store::{UserNid, ids::lock};

/// Bytes that a shared filter takes besides the struct and its lists: the counts of its holders, and its entry here with
/// a share of the free entries.
pub(super) const SHARED_BYTES: usize = 2 * size_of::<usize>() + 2 * size_of::<(Key, Weak<SyncFilter>)>();

/// The user and the definition that a filter was compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A stored filter, by its ID.
    Stored(UserNid, i64),
    /// A filter that was given with the request, by the digest of its JSON.
    Given(UserNid, [u8; 32]),
}

impl Key {
    pub(super) fn given(user: UserNid, json: &str) -> Self {
        Self::Given(user, Sha256::digest(json.as_bytes()).into())
    }
}

/// All filters that are held, by what they were compiled from. Lock it for a moment, and drop no filter meanwhile: that
/// takes the lock.
#[derive(Debug, Default)]
pub(super) struct InUse(Mutex<HashMap<Key, Weak<SyncFilter>>>);

/// The registration of a held filter. It leaves with the filter.
#[derive(Debug)]
pub(super) struct Registration {
    key: Key,
    all: Arc<InUse>,
}

impl InUse {
    /// The filter of this definition, if somebody holds it.
    pub(super) fn find(&self, key: &Key) -> Option<Arc<SyncFilter>> {
        lock(&self.0).get(key).and_then(Weak::upgrade)
    }

    /// Returns the filter for its first holder, or the one that somebody already holds.
    pub(super) fn share(self: &Arc<Self>, key: Key, mut filter: SyncFilter) -> Arc<SyncFilter> {
        let mut filters = lock(&self.0);
        if let Some(same) = filters.get(&key).and_then(Weak::upgrade) {
            return same;
        }
        filter.registration = Some(Registration { key, all: Arc::clone(self) });
        let filter = Arc::new(filter);
        filters.insert(key, Arc::downgrade(&filter));
        filter
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut filters = lock(&self.all.0);
        // Another one may have taken the place since this one lost its last holder.
        if filters.get(&self.key).is_some_and(|filter| filter.strong_count() == 0) {
            filters.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: UserNid = UserNid(1);

    #[test]
    fn holders_of_the_same_definition_share_one_filter() {
        let in_use = Arc::new(InUse::default());
        let share = |key| in_use.share(key, SyncFilter::default());
        let key = Key::given(ALICE, "{}");
        let first = share(key);
        assert!(Arc::ptr_eq(&first, &share(Key::given(ALICE, "{}"))));
        assert!(in_use.find(&key).is_some_and(|found| Arc::ptr_eq(&found, &first)));
        for other in
            [Key::given(ALICE, "{ }"), Key::given(UserNid(2), "{}"), Key::Stored(ALICE, 1), Key::Stored(ALICE, 2)]
        {
            assert!(!Arc::ptr_eq(&first, &share(other)), "{other:?}");
        }
    }

    #[test]
    fn a_filter_without_holders_has_no_entry() {
        let in_use = Arc::new(InUse::default());
        let key = Key::Stored(ALICE, 1);
        let first = in_use.share(key, SyncFilter::default());
        let second = in_use.share(key, SyncFilter::default());
        drop(first);
        assert!(in_use.find(&key).is_some());
        drop(second);
        assert!(in_use.find(&key).is_none());
        assert!(lock(&in_use.0).is_empty());
        // The next holder gets a new one.
        let third = in_use.share(key, SyncFilter::default());
        assert!(in_use.find(&key).is_some_and(|found| Arc::ptr_eq(&found, &third)));
    }

    /// A filter loses its last holder before its registration leaves. Meanwhile another one may be registered.
    #[test]
    fn a_late_registration_leaves_a_newer_filter_in_its_place() {
        let in_use = Arc::new(InUse::default());
        let key = Key::Stored(ALICE, 1);
        let held = in_use.share(key, SyncFilter::default());
        drop(Registration { key, all: Arc::clone(&in_use) });
        assert!(in_use.find(&key).is_some_and(|found| Arc::ptr_eq(&found, &held)));
    }
}
