//! Filters: what a client wants to hear of in `/sync` and `/messages`, stored under a short id.
//!
//! Promise: a stored filter never changes, so a parsed one is kept in memory; the same filter stored twice has one id.

use std::sync::Arc;

use quick_cache::sync::Cache;
use ruma::api::client::filter::FilterDefinition;

use super::turns::Turns;
use crate::{
    config::Limits,
    store::{self, Database, UserNid, Write, filters as rows},
};

/// Parsed filters kept in memory; the others are read again when they are used. A parsed filter is about a kilobyte.
const CACHED_FILTERS: usize = 10_000;

/// The service of stored filters.
pub struct Filters {
    db: Arc<Database>,
    max_bytes: usize,
    max_per_user: i64,
    turns: Turns,
    parsed: Cache<(UserNid, i64), Arc<FilterDefinition>>,
}

/// Why a filter was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a filter must not be larger than {0} bytes")]
    TooLarge(usize),
    #[error("no more than {0} filters are stored for an account")]
    TooMany(i64),
    #[error("the filter could not be stored")]
    Storage(#[from] store::Error),
}

impl Filters {
    pub fn new(db: Arc<Database>, limits: &Limits) -> Self {
        Self {
            db,
            max_bytes: limits.filter_bytes.bytes(),
            max_per_user: i64::from(limits.filters_per_user),
            turns: Turns::default(),
            parsed: Cache::new(CACHED_FILTERS),
        }
    }

    /// Stores a filter; the answer is its id. A filter that the user has stored before keeps its id.
    pub async fn create(&self, user: UserNid, filter: FilterDefinition) -> Result<String, CreateError> {
        let json = serde_json::to_string(&filter).map_err(|error| store::Error::damaged("filter", error))?;
        if json.len() > self.max_bytes {
            return Err(CreateError::TooLarge(self.max_bytes));
        }
        // Two devices that store the same filter at once must find each other's.
        let _turn = self.turns.take(user).await;
        let mut reader = self.db.read().await?;
        if let Some(same) = rows::find_same_filter(&mut reader.conn(), user, &json).await? {
            return Ok(same.to_string());
        }
        if rows::count_filters(&mut reader.conn(), user).await? >= self.max_per_user {
            return Err(CreateError::TooMany(self.max_per_user));
        }
        drop(reader);
        let filter_id = self.db.committer().ids().filter()?;
        let row = rows::FILTER.row([user.into(), filter_id.into(), json.into()]);
        self.db.committer().write(Write::new(vec![row])).await?;
        self.parsed.insert((user, filter_id.0), Arc::new(filter));
        Ok(filter_id.0.to_string())
    }

    /// The user's filter with this id.
    pub async fn find(&self, user: UserNid, filter_id: &str) -> Result<Option<Arc<FilterDefinition>>, store::Error> {
        // Only the spelling that we gave out: "007" and "+7" are not ids.
        let Some(id) = filter_id.parse::<i64>().ok().filter(|id| id.to_string() == filter_id) else {
            return Ok(None);
        };
        if let Some(filter) = self.parsed.get(&(user, id)) {
            return Ok(Some(filter));
        }
        let mut reader = self.db.read().await?;
        let Some(json) = rows::find_filter(&mut reader.conn(), user, id).await? else {
            return Ok(None);
        };
        let filter: FilterDefinition =
            serde_json::from_str(&json).map_err(|error| store::Error::damaged("filter", error))?;
        let filter = Arc::new(filter);
        self.parsed.insert((user, id), Arc::clone(&filter));
        Ok(Some(filter))
    }
}
