//! The facts about a room that push rules need besides the event itself: the number of members and the power levels, at
//! the time when the event was sent.
//!
//! Promise: the state events that were current when an event was sent never change afterwards. Only a redaction changes
//! what they say: it removes some levels from the power levels. Needs no database as long as the state log's tail reaches
//! back.

use sabha_federation::state_log::{Change, Jump, Membership, StateEntry};

use crate::{
    room::{Room, Rooms, jumps::entry_in, load::membership},
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
            // The facts after the last of several changes at one position count.
            if self.newest_first.last().is_none_or(|newer| newer.from != change.pos) {
                self.newest_first.push(Circumstances { from: change.pos, ..self.now });
            }
            self.now = then;
        }
    }
}

impl Rooms {
    /// The facts right after `after` and ever since, oldest first. Never empty.
    pub(crate) async fn circumstances(&self, room: &Room, after: Position) -> Result<Vec<Circumstances>, Error> {
        let levels_key = self.find_key(room, "m.room.power_levels", "").await?;
        let published = self.db.committer().published();
        let rewound = {
            let view = room.view();
            // A jump that is not committed is not stored either, so it cannot be undone.
            view.jumps.last().is_none_or(|jump| *jump <= published).then(|| {
                let power_levels = levels_key.and_then(|key| view.state.get(key)).map(|entry| entry.event_nid);
                let now = Circumstances { from: after, joined: view.state.joined(), power_levels };
                let mut rewind = Rewind { now, levels_key, newest_first: Vec::new() };
                let known_from = view.state.tail_from().max(after);
                view.state.changes_after(known_from).rev().for_each(|change| rewind.undo(change));
                (rewind, known_from)
            })
        };
        let (mut rewind, known_from) = match rewound {
            Some(rewound) => rewound,
            None => {
                let state = self.state_at(room, published).await?;
                let joined = state.iter().filter(|(_, entry)| entry.membership == Some(Membership::Join)).count();
                let power_levels = levels_key.and_then(|key| entry_in(&state, key)).map(|entry| entry.event_nid);
                let now = Circumstances { from: after, joined, power_levels };
                (Rewind { now, levels_key, newest_first: Vec::new() }, published)
            }
        };
        if after < known_from {
            let earlier = self.counted_changes(room, (after, known_from), levels_key).await?;
            earlier.iter().rev().for_each(|change| rewind.undo(change));
        }
        let mut found = rewind.newest_first;
        found.push(Circumstances { from: after, ..rewind.now });
        found.reverse();
        Ok(found)
    }

    /// The stored changes in (`after`, `upto`] that may change the facts, oldest first.
    async fn counted_changes(
        &self,
        room: &Room,
        (after, upto): (Position, Position),
        levels_key: Option<KeyNid>,
    ) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        // The newest jump before the rows that are read, and its states once they are needed.
        let mut jump_pos = self.jumps(room, Position::BEFORE_ALL, after).pop();
        let mut jump: Option<Jump> = None;
        let mut from = after;
        for end in self.jumps(room, after, upto).into_iter().map(Some).chain([None]) {
            let (range, since) = ((from, end.unwrap_or(upto)), jump_pos.unwrap_or(Position::BEFORE_ALL));
            let mut reader = self.db.read().await?;
            let stored = rows::counted_changes(&mut reader.conn(), room.nid, range, levels_key, since).await?;
            drop(reader);
            let needs_jump = |row: &rows::CountedChangeRow| {
                row.prev_event_nid.is_some() && row.prev_membership.is_none() && Some(KeyNid(row.key_nid)) != levels_key
            };
            if let Some(pos) = jump_pos.filter(|_| jump.is_none() && stored.iter().any(needs_jump)) {
                jump = Some(self.jump(room, pos).await?);
            }
            for row in stored {
                changes.push(stored_change(&row, jump.as_ref())?);
            }
            if let Some(pos) = end {
                let next = self.jump(room, pos).await?;
                let of_jump = jump_changes(&next);
                changes.extend(of_jump.filter(|change| is_counted(change, levels_key)));
                (jump_pos, jump, from) = (Some(pos), Some(next), pos);
            }
        }
        Ok(changes)
    }
}

fn is_counted(change: &Change, levels_key: Option<KeyNid>) -> bool {
    let is_member = |entry: Option<StateEntry>| entry.is_some_and(|entry| entry.membership.is_some());
    Some(change.key) == levels_key || is_member(change.now) || is_member(change.before)
}

/// A change as it is stored. If no row has the membership before it, `jump` does, the newest jump before the change.
fn stored_change(row: &rows::CountedChangeRow, jump: Option<&Jump>) -> Result<Change, Error> {
    let (key, pos) = (KeyNid(row.key_nid), Position(row.pos));
    let entry = |event: Option<i64>, membership: Option<Membership>| {
        event.map(|event| StateEntry { event_nid: EventNid(event), pos, membership })
    };
    let now = row.membership.map(membership).transpose()?;
    let was = match row.prev_membership {
        Some(code) => Some(membership(code)?),
        None => jump.and_then(|jump| entry_in(&jump.after, key)?.membership),
    };
    Ok(Change { key, pos, now: entry(row.event_nid, now), before: entry(row.prev_event_nid, was) })
}

fn jump_changes(jump: &Jump) -> impl Iterator<Item = Change> {
    jump.rows().map(|row| {
        let (now, before) = (entry_in(&jump.after, row.key), entry_in(&jump.before, row.key));
        Change { key: row.key, pos: row.pos, now, before }
    })
}
