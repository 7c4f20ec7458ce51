//! A cache of compiled stored filters: each is compiled once for all syncs that name it.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};

use super::{FilterError, Filters, SyncFilter};
use crate::{
    memory::budget::{Budget, Part},
    store::{self, UserNid},
};

/// The approximate number of filters that fit in. A filter of an ordinary client takes a kilobyte, and eight more for each
/// list with patterns.
const CACHED_FILTERS: usize = 10_000;

/// Compiled filters by owner and id. A stored filter never changes.
pub struct FilterCache(Arc<Cache<(UserNid, i64), Arc<SyncFilter>, ByBytes>>);

#[derive(Clone)]
struct ByBytes;

impl Weighter<(UserNid, i64), Arc<SyncFilter>> for ByBytes {
    fn weight(&self, _: &(UserNid, i64), filter: &Arc<SyncFilter>) -> u64 {
        filter.bytes() as u64
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

impl FilterCache {
    pub fn new(budget: &Budget) -> Self {
        let cache = Arc::new(Cache::with_weighter(CACHED_FILTERS, budget.share(Part::Filters), ByBytes));
        budget.watch(Part::Filters, {
            let cache: Arc<Cache<_, _, _>> = Arc::clone(&cache);
            move || cache.weight()
        });
        Self(cache)
    }

    /// The user's filter with this id, if it is cached.
    pub fn find_in_memory(&self, user: UserNid, filter_id: &str) -> Option<Arc<SyncFilter>> {
        self.0.get(&(user, Filters::read_id(filter_id)?))
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
        if let Some(filter) = self.0.get(&(user, id)) {
            return Ok(Some(filter));
        }
        let Some(definition) = stored.find(user, filter_id).await? else { return Ok(None) };
        let filter = Arc::new(SyncFilter::new(&definition)?);
        self.0.insert((user, id), Arc::clone(&filter));
        Ok(Some(filter))
    }
}
