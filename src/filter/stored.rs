//! Filters: the parts of `/sync` and `/messages` that a client wants, stored under a short id.
//!
//! Promise: a stored filter never changes, and storing the same filter twice gives the same id. Beyond
//! `limits.filters_per_user` the oldest filters are deleted: a client whose filter is gone stores it again, but a
//! client that cannot store one cannot start. [`FilterCache`](crate::filter::FilterCache) caches compiled
//! filters.

use std::sync::Arc;

use super::Definition;
use crate::{
    account::turns::Turns,
    config::Limits,
    limit_exceeded::LimitExceeded,
    store::{
        self, Conn, Database, Position, Row, Transaction, UserNid, Write, committer::insert_rows, filters as rows,
    },
};

/// Maximum number of old filters that one new filter evicts.
const EVICTED_AT_ONCE: usize = 100;

/// The service of stored filters.
pub struct Filters {
    db: Arc<Database>,
    max_bytes: usize,
    max_per_user: usize,
    turns: Turns,
}

/// Why a filter was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a filter must not be larger than {0} bytes")]
    TooLarge(usize),
    #[error(transparent)]
    TooManyWaiting(#[from] LimitExceeded),
    #[error("the filter could not be stored")]
    Storage(#[from] store::Error),
}

impl Filters {
    pub fn new(db: Arc<Database>, limits: &Limits) -> Self {
        Self {
            db,
            max_bytes: limits.filter_bytes.bytes(),
            max_per_user: limits.filters_per_user as usize,
            turns: Turns::default(),
        }
    }

    /// Stores a filter and returns its id. A filter that the user has stored before keeps its id.
    pub async fn create(&self, user: UserNid, filter: &Definition) -> Result<String, CreateError> {
        let json = filter.to_json().map_err(|error| store::Error::damaged("filter", error))?;
        if json.len() > self.max_bytes {
            return Err(CreateError::TooLarge(self.max_bytes));
        }
        // Two devices that store the same filter at once must get the same id.
        let _turn = self.turns.take(user).await?;
        let mut reader = self.db.read().await?;
        if let Some(same) = rows::find_same_filter(&mut reader.conn(), user, &json).await? {
            return Ok(same.to_string());
        }
        let mut stored = rows::filter_ids(&mut reader.conn(), user).await?;
        drop(reader);
        // There is more than one to evict only after the limit was lowered.
        stored.truncate((stored.len() + 1).saturating_sub(self.max_per_user).min(EVICTED_AT_ONCE));
        let filter_id = self.db.committer().ids().filter()?;
        let row = rows::FilterColumns { user_nid: user, filter_id, json: json.into() }.row();
        if stored.is_empty() {
            self.db.committer().write(Write::new(vec![row])).await?;
        } else {
            self.db.committer().transact(Replace { user, old: stored, row }).await?;
        }
        Ok(filter_id.0.to_string())
    }

    /// Reads the number in an id. Only the spelling that we gave out is valid: "007" and "+7" are not ids.
    pub fn read_id(filter_id: &str) -> Option<i64> {
        filter_id.parse::<i64>().ok().filter(|id| id.to_string() == filter_id)
    }

    /// The user's filter with this id.
    pub async fn find(&self, user: UserNid, filter_id: &str) -> Result<Option<Definition>, store::Error> {
        let Some(id) = Self::read_id(filter_id) else { return Ok(None) };
        let mut reader = self.db.read().await?;
        let Some(json) = rows::find_filter(&mut reader.conn(), user, id).await? else {
            return Ok(None);
        };
        Definition::read(&json).map(Some).map_err(|error| store::Error::damaged("filter", error))
    }
}

/// Stores a filter and deletes older ones.
struct Replace {
    user: UserNid,
    old: Vec<i64>,
    row: Row,
}

impl Transaction for Replace {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), store::Error> {
        for filter_id in &self.old {
            rows::delete_filter(conn, self.user, *filter_id).await?;
        }
        insert_rows(conn, std::slice::from_ref(&self.row)).await
    }
}
