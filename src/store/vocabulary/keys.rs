//! Pairs of event type and state key. A room may have any number of them, so memory holds a bounded part: the cache
//! evicts by bytes, and the database knows the others.
//!
//! A pair that is not stored yet stays while somebody can still store it. Otherwise another lookup would give it a second
//! short id. What a room's state has, and what it surely lacks, is the room's own knowledge (`room::absent_keys`).

mod cache;

use std::{collections::HashMap, sync::Arc};

pub(super) use self::cache::Keys;
use super::{Mark, Word, escape, unescape};
use crate::store::{
    Database, Error, KeyNid, Write,
    log::{Touch, WordKind},
    on,
    rows::inserts,
    statements,
};

statements! {
    FIND_KEY = "SELECT key_nid FROM state_key WHERE type = $1 AND state_key = $2";
    FIND_KEYS_32 = "SELECT key_nid, state_key FROM state_key WHERE type = $1 AND state_key IN \
        ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
        $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)";
}

inserts! {
    STATE_KEY: StateKeyColumns = "state_key" (
        key_nid: KeyNid, r#type: Word, state_key: Word
    ) key 1 Keep, followed by Word;
}

/// A pair of event type and state key, with its short id.
#[derive(Debug)]
pub struct StateKey {
    pub nid: KeyNid,
    pub event_type: Arc<str>,
    pub state_key: Arc<str>,
    stored: Arc<Mark>,
}

impl StateKey {
    /// Adds the row to `write`, unless it is known to be stored.
    pub fn write_if_new(&self, write: &mut Write) {
        if !self.stored.is_stored() {
            let row = StateKeyColumns {
                key_nid: self.nid,
                r#type: Word(Arc::clone(&self.event_type)),
                state_key: Word(Arc::clone(&self.state_key)),
            }
            .row();
            write.add_word(row, Touch::Word { kind: WordKind::StateKey, nid: self.nid.0 }, Arc::clone(&self.stored));
        }
    }
}

impl Database {
    /// The pair of event type and state key, with a new short id if there was none.
    pub async fn state_key(&self, event_type: &str, state_key: &str) -> Result<Arc<StateKey>, Error> {
        let keys = &self.vocabulary().keys;
        if let Some(known) = keys.get(event_type, state_key) {
            return Ok(known);
        }
        let ids = self.committer().ids();
        let openings = ids.openings();
        let read = async {
            // The one who looked for the pair before a write has found that it is not stored.
            if keys.is_absent(event_type, state_key, openings) {
                return Ok(None);
            }
            self.read_state_key(event_type, state_key).await
        };
        let make = || {
            ids.ensure_since(openings)?;
            keys.forget_absent(event_type, state_key);
            ids.key()
        };
        keys.get_or_read(event_type, state_key, read, make).await
    }

    /// The pair, if it is in memory.
    pub(crate) fn state_key_in_memory(&self, event_type: &str, state_key: &str) -> Option<Arc<StateKey>> {
        self.vocabulary().keys.get(event_type, state_key)
    }

    /// The pair, if a room's state has ever had it.
    pub(crate) async fn find_state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<StateKey>>, Error> {
        let keys = &self.vocabulary().keys;
        if let Some(known) = keys.get(event_type, state_key) {
            return Ok(Some(known));
        }
        // `None` stands for a pair that does not exist.
        let openings = self.committer().ids().openings();
        let read = async {
            let found = self.read_state_key(event_type, state_key).await.map_err(Some)?;
            if found.is_none() {
                keys.note_absent(event_type, state_key, openings);
            }
            Ok(found)
        };
        match keys.get_or_read(event_type, state_key, read, || Err(None::<Error>)).await {
            Ok(known) => Ok(Some(known)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// The pairs of this type with these state keys, in no particular order; those that no room has ever had are
    /// missing.
    pub(crate) async fn find_state_keys<'k>(
        &self,
        event_type: &str,
        state_keys: impl IntoIterator<Item = &'k str>,
    ) -> Result<Vec<KeyNid>, Error> {
        let keys = &self.vocabulary().keys;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for state_key in state_keys {
            match keys.get(event_type, state_key) {
                Some(known) => found.push(known.nid),
                None => missing.push(state_key),
            }
        }
        for chunk in missing.chunks(32) {
            for (state_key, nid) in self.read_state_keys(event_type, chunk).await? {
                let read = std::future::ready(Ok::<_, Error>(Some(nid)));
                keys.get_or_read(event_type, &state_key, read, || Ok(nid)).await?;
                found.push(nid);
            }
        }
        Ok(found)
    }

    async fn read_state_key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, Error> {
        let mut reader = self.read().await?;
        let row: Option<(i64,)> = on!(&mut reader.conn(), db => sqlx::query_as(FIND_KEY.text())
            .bind(escape(event_type)).bind(escape(state_key)).fetch_optional(&mut **db).await)?;
        Ok(row.map(|(nid,)| KeyNid(nid)))
    }

    /// At most 32 pairs, by their state key.
    async fn read_state_keys(&self, event_type: &str, wanted: &[&str]) -> Result<HashMap<String, KeyNid>, Error> {
        let mut reader = self.read().await?;
        let rows: Vec<(i64, String)> = on!(&mut reader.conn(), db => {
            let mut query = sqlx::query_as(FIND_KEYS_32.text()).bind(escape(event_type));
            for index in 0..32 {
                // The first one again finds nothing more.
                query = query.bind(escape(wanted.get(index).or(wanted.first()).copied().unwrap_or_default()));
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.into_iter().map(|(nid, state_key)| Ok((unescape(state_key)?, KeyNid(nid)))).collect()
    }
}

#[cfg(test)]
mod tests;
