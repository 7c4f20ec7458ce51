//! A cache of compiled stored filters: each is compiled once for all syncs that name it.

use std::sync::Arc;

use super::{FilterError, Filters, SyncFilter};
use crate::{
    memory::{
        budget::{Budget, Part},
        cache::{ByteCache, HasBytes},
    },
    store::{self, UserNid},
};

/// Compiled filters by owner and id. A stored filter never changes.
pub struct FilterCache(Arc<ByteCache<(UserNid, i64), Arc<SyncFilter>>>);

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

impl FilterCache {
    pub fn new(budget: &Budget) -> Self {
        Self(budget.cache(Part::Filters))
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
