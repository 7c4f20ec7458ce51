//! Filters: what a client wants to hear of in `/sync` and `/messages`, stored under a short id.
//!
//! Promise: a stored filter never changes, and the same filter stored twice has one id. Compiled ones are kept in memory by
//! [`FilterCache`](crate::sync::filter::FilterCache).

use std::sync::Arc;

use ruma::api::client::filter::FilterDefinition;

use super::turns::Turns;
use crate::{
    config::Limits,
    store::{self, Database, UserNid, Write, filters as rows},
};

/// The service of stored filters.
pub struct Filters {
    db: Arc<Database>,
    max_bytes: usize,
    max_per_user: i64,
    turns: Turns,
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
        Ok(filter_id.0.to_string())
    }

    /// The number in an id. Only the spelling that we gave out: "007" and "+7" are not ids.
    pub fn read_id(filter_id: &str) -> Option<i64> {
        filter_id.parse::<i64>().ok().filter(|id| id.to_string() == filter_id)
    }

    /// The user's filter with this id.
    pub async fn find(&self, user: UserNid, filter_id: &str) -> Result<Option<FilterDefinition>, store::Error> {
        let Some(id) = Self::read_id(filter_id) else { return Ok(None) };
        let mut reader = self.db.read().await?;
        let Some(json) = rows::find_filter(&mut reader.conn(), user, id).await? else {
            return Ok(None);
        };
        serde_json::from_str(&json).map(Some).map_err(|error| store::Error::damaged("filter", error))
    }
}
