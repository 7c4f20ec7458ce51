//! Reads across the jumps of a room's state log: positions at which a whole state replaced another, without a row for each
//! key.
//!
//! Promise: a reader of rows gets those of the jumps too, as if they were stored. A whole state needs nothing: a jump is a
//! checkpoint that is never thinned, so no replay goes across one.
//!
//! A jump is as large as the state, and nobody caches it. It is read for histories that reach back to before it, and what
//! follows from these is cached by those who ask.

use sabha_federation::state_log::{Jump, LogRow, StateEntry, checkpoint, merge};

use super::{Room, Rooms};
use crate::store::{Error, KeyNid, Position, states as rows};

impl Rooms {
    /// The positions of the committed jumps in (`after`, `upto`], oldest first.
    pub(super) fn jumps(&self, room: &Room, after: Position, upto: Position) -> Vec<Position> {
        // The view may be ahead of the commits, and the jump is not stored by then.
        let upto = upto.min(self.db.committer().published());
        let view = room.view();
        view.jumps.iter().copied().filter(|pos| after < *pos && *pos <= upto).collect()
    }

    /// The committed jump at `pos`.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is missing or cannot be read, and errors of the database.
    pub(super) async fn jump(&self, room: &Room, pos: Position) -> Result<Jump, Error> {
        let mut reader = self.db.read().await?;
        let row = rows::jump(&mut reader.conn(), room.nid, pos).await?;
        drop(reader);
        let row = row.ok_or_else(|| Error::damaged("jump", format!("{}: none at {}", room.room_id, pos.0)))?;
        let state = |blob: &[u8]| checkpoint::decode(blob).map_err(|error| Error::damaged("jump", error));
        Ok(Jump { pos, before: state(&row.before)?, after: state(&row.blob)? })
    }

    /// The histories of some keys, each oldest first, from their stored rows.
    pub(super) async fn with_jumps<const N: usize>(
        &self,
        room: &Room,
        keys: [Option<KeyNid>; N],
        mut stored: [Vec<LogRow>; N],
    ) -> Result<[Vec<LogRow>; N], Error> {
        for pos in self.jumps(room, Position::BEFORE_ALL, Position(i64::MAX)) {
            // One at a time: each may take megabytes.
            let jump = self.jump(room, pos).await?;
            for (rows, key) in stored.iter_mut().zip(keys) {
                let row = key.and_then(|key| jump.row(key));
                *rows = merge(std::mem::take(rows), row);
            }
        }
        Ok(stored)
    }
}

/// The entry of a key in a state that is sorted by key.
pub(super) fn entry_in(state: &[(KeyNid, StateEntry)], key: KeyNid) -> Option<StateEntry> {
    state.binary_search_by_key(&key, |(key, _)| *key).ok().map(|index| state[index].1)
}

#[cfg(test)]
mod tests;
