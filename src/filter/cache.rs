//! Compiled filters in memory: each is compiled once for all syncs that have it at the same time, and a stored one also
//! for those that follow.

use std::sync::Arc;

use super::{
    Definition, FilterError, Filters, SyncFilter,
    in_use::{InUse, Key},
};
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{self, UserNid},
};

/// Compiled filters by owner and definition.
pub struct FilterCache {
    /// Stored filters that were used lately. A stored filter never changes. Filters that are given with the request are
    /// not here: one request after another could bring a new one.
    stored: Arc<ByteCache<Key, Arc<SyncFilter>>>,
    /// These, and all filters that a sync holds. The filters of waiting syncs are bounded for each user
    /// ([`crate::limits::parked_syncs`]).
    in_use: Arc<InUse>,
}

impl HasBytes for SyncFilter {
    fn bytes(&self) -> u64 {
        self.size_bytes() as u64
    }
}

/// The reason why a stored filter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FindFilterError {
    #[error(transparent)]
    Refused(#[from] FilterError),
    #[error("the filter could not be read")]
    Storage(#[from] store::Error),
}

/// The reason why a filter that is given with a request cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GivenFilterError {
    #[error(transparent)]
    Refused(#[from] FilterError),
    #[error("the filter could not be written as JSON")]
    Write(#[from] serde_json::Error),
}

impl FilterCache {
    pub fn new(budget: &Budget) -> Self {
        Self { stored: budget.cache(Part::Filters), in_use: Arc::default() }
    }

    /// The user's filter with this id, if it is in memory.
    pub fn find_in_memory(&self, user: UserNid, filter_id: &str) -> Option<Arc<SyncFilter>> {
        self.find_stored(&Key::Stored(user, Filters::read_id(filter_id)?))
    }

    fn find_stored(&self, key: &Key) -> Option<Arc<SyncFilter>> {
        self.stored.get(key).or_else(|| self.in_use.find(key))
    }

    /// The user's filter with this id.
    ///
    /// # Errors
    /// [`FindFilterError::Refused`] for a filter that was stored under other limits.
    pub async fn find(
        &self,
        stored: &Filters,
        user: UserNid,
        filter_id: &str,
    ) -> Result<Option<Arc<SyncFilter>>, FindFilterError> {
        let Some(id) = Filters::read_id(filter_id) else { return Ok(None) };
        let key = Key::Stored(user, id);
        if let Some(filter) = self.find_stored(&key) {
            return Ok(Some(filter));
        }
        let Some(definition) = stored.find(user, filter_id).await? else { return Ok(None) };
        let filter = self.in_use.share(key, SyncFilter::new(&definition)?);
        self.stored.insert(key, Arc::clone(&filter));
        Ok(Some(filter))
    }

    /// The filter that a user's request gives.
    ///
    /// # Errors
    /// When the filter is refused.
    pub fn given(&self, user: UserNid, definition: &Definition) -> Result<Arc<SyncFilter>, GivenFilterError> {
        let key = Key::given(user, &definition.to_json()?);
        match self.in_use.find(&key) {
            Some(filter) => Ok(filter),
            None => Ok(self.in_use.share(key, SyncFilter::new(definition)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::tests::server;

    fn definition(json: &str) -> Definition {
        Definition::read(json).expect("a filter")
    }

    #[tokio::test]
    async fn syncs_share_a_stored_filter_that_the_cache_does_not_keep() {
        let server = server().await;
        let (alice, bob) = (server.register("alice").await.user.nid, server.register("bob").await.user.nid);
        let stored = &server.app.filters;
        let cache = FilterCache::new(&Budget::new(0));
        let mut ids = Vec::new();
        for json in [r#"{"room":{"include_leave":true}}"#, "{}"] {
            ids.push(stored.create(alice, &definition(json)).await.expect("stored"));
        }
        let of_bob = stored.create(bob, &definition("{}")).await.expect("stored");
        let find = async |user, id: &str| cache.find(stored, user, id).await.expect("read").expect("it is there");
        let first = find(alice, &ids[0]).await;
        assert_eq!(cache.stored.len(), 0, "it is larger than the cache");
        assert!(Arc::ptr_eq(&first, &find(alice, &ids[0]).await));
        assert!(cache.find_in_memory(alice, &ids[0]).is_some_and(|found| Arc::ptr_eq(&found, &first)));
        let other = find(alice, &ids[1]).await;
        assert!(first.room.include_leave && !other.room.include_leave);
        assert!(!Arc::ptr_eq(&other, &find(bob, &of_bob).await));
        drop(first);
        assert!(cache.find_in_memory(alice, &ids[0]).is_none(), "nobody holds it");
    }

    #[tokio::test]
    async fn a_stored_filter_stays_in_the_cache_when_nobody_holds_it() {
        let server = server().await;
        let alice = server.register("alice").await.user.nid;
        let id = server.app.filters.create(alice, &definition("{}")).await.expect("stored");
        let cache = &server.app.filter_cache;
        drop(cache.find(&server.app.filters, alice, &id).await.expect("read"));
        assert!(cache.find_in_memory(alice, &id).is_some());
    }

    #[test]
    fn requests_share_a_given_filter_while_one_holds_it() {
        let cache = FilterCache::new(&Budget::new(1 << 30));
        let alice = UserNid(1);
        let given = |user, text: &str| cache.given(user, &definition(text)).expect("a small filter");
        let leave = r#"{"room":{"include_leave":true}}"#;
        let first = given(alice, leave);
        assert!(first.room.include_leave);
        assert!(Arc::ptr_eq(&first, &given(alice, leave)));
        assert!(Arc::ptr_eq(&first, &given(alice, r#"{ "room": { "include_leave": true } }"#)), "the same definition");
        assert!(!Arc::ptr_eq(&first, &given(UserNid(2), leave)));
        // Fields that Ruma does not know count too.
        let related =
            |rel_type: &str| format!(r#"{{"room":{{"timeline":{{"related_by_rel_types":["{rel_type}"]}}}}}}"#);
        let (a, b) = (given(alice, &related("a")), given(alice, &related("b")));
        assert!(!Arc::ptr_eq(&a, &b));
        let weak = Arc::downgrade(&first);
        drop(first);
        assert_eq!(weak.strong_count(), 0, "no cache keeps it");
    }
}
