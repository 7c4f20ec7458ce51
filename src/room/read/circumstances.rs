//! The facts about a room that push rules need besides the event itself: the number of members and the power levels, at
//! the time when the event was sent.
//!
//! Promise: the state events that were current when an event was sent never change afterwards. Only a redaction changes
//! what they say: it removes some levels from the power levels. Needs no database as long as the state log's tail reaches
//! back.

use sabha_federation::state_log::{Change, Membership, StateEntry};

use crate::{
    room::{Room, Rooms},
    store::{Error, EventNid, KeyNid, Position, states as rows},
};

/// The facts, from a position on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances {
    pub from: Position,
    /// The number of joined users.
    pub joined: usize,
    /// The room's power levels.
    pub power_levels: Option<EventNid>,
}

impl Circumstances {
    /// Picks the facts at `pos` from the result of [`Rooms::circumstances`].
    pub fn at(found: &[Self], pos: Position) -> Option<Self> {
        found.get(found.partition_point(|held| held.from <= pos).checked_sub(1)?).copied()
    }
}

/// Undoes changes one after the other, newest first.
struct Rewind {
    /// The facts after the change that is undone next.
    now: Circumstances,
    levels_key: Option<KeyNid>,
    newest_first: Vec<Circumstances>,
}

impl Rewind {
    fn undo(&mut self, change: &Change) {
        let joined = |entry: Option<StateEntry>| entry.is_some_and(|entry| entry.membership == Some(Membership::Join));
        let mut then = self.now;
        then.joined =
            (then.joined + usize::from(joined(change.before))).saturating_sub(usize::from(joined(change.now)));
        if Some(change.key) == self.levels_key {
            then.power_levels = change.before.map(|entry| entry.event_nid);
        }
        if then != self.now {
            self.newest_first.push(Circumstances { from: change.pos, ..self.now });
            self.now = then;
        }
    }
}

impl Rooms {
    /// The facts right after `after` and ever since, oldest first. Never empty.
    pub(crate) async fn circumstances(&self, room: &Room, after: Position) -> Result<Vec<Circumstances>, Error> {
        let levels_key = self.find_key(room, "m.room.power_levels", "").await?;
        let (mut rewind, known_from) = {
            let view = room.view();
            let power_levels = levels_key.and_then(|key| view.state.get(key)).map(|entry| entry.event_nid);
            let now = Circumstances { from: after, joined: view.state.joined(), power_levels };
            let mut rewind = Rewind { now, levels_key, newest_first: Vec::new() };
            let known_from = view.state.tail_from().max(after);
            view.state.changes_after(known_from).rev().for_each(|change| rewind.undo(change));
            (rewind, known_from)
        };
        if after < known_from {
            let mut reader = self.db.read().await?;
            let earlier = rows::counted_changes(&mut reader.conn(), room.nid, (after, known_from), levels_key).await?;
            for row in earlier.into_iter().rev() {
                rewind.undo(&change(row)?);
            }
        }
        let mut found = rewind.newest_first;
        found.push(Circumstances { from: after, ..rewind.now });
        found.reverse();
        Ok(found)
    }
}

fn change(row: rows::CountedChangeRow) -> Result<Change, Error> {
    let pos = Position(row.pos);
    let entry = |event: Option<i64>, membership: Option<i64>| {
        let Some(event_nid) = event.map(EventNid) else { return Ok(None) };
        let membership = membership.map(crate::room::load::membership).transpose()?;
        Ok::<_, Error>(Some(StateEntry { event_nid, pos, membership }))
    };
    let (now, before) = (entry(row.event_nid, row.membership)?, entry(row.prev_event_nid, row.prev_membership)?);
    Ok(Change { key: KeyNid(row.key_nid), pos, now, before })
}
