//! Jumps: a whole state that replaces the room's state, as a join through another server and the end of partial state bring it.
//!
//! Promise: the members of the room, its servers and the columns of its head follow the jump as they would have followed a
//! change of each key. The state itself is stored as two checkpoints, the one before and the one after.

use std::sync::Arc;

use sabha_federation::{
    Pdu,
    held::Held,
    state_log::{Jump, checkpoint},
};

use super::{RoomWriter, outcome::ChangedMember, rows::Making};
use crate::{
    room::listing::{columns::shown_types, heroes::Heroes},
    store::{Error, KeyNid, Position, log::Touch, states},
};

/// A whole state that replaces the room's state.
pub struct JumpTo {
    /// Each key once.
    pub entries: Vec<(KeyNid, Held)>,
    /// The users whose membership differs, each with the key of it.
    pub members: Vec<(KeyNid, ChangedMember)>,
}

/// A jump with everything that a write of it needs.
pub(super) struct Jumping {
    /// Sorted by key.
    entries: Vec<(KeyNid, Held)>,
    members: Vec<(KeyNid, ChangedMember)>,
    /// The events that the columns of the head show, by their types.
    shown: Vec<(&'static str, Option<Arc<Pdu>>)>,
}

impl RoomWriter<'_> {
    /// Adds a jump to what will be committed, before any event. The events of the new state are stored or queued.
    ///
    /// # Errors
    /// [`Error::Damaged`] if an event that lists show is not stored. Errors of the database. Nothing is added then.
    pub async fn jump(&mut self, to: JumpTo) -> Result<(), Error> {
        debug_assert!(self.pending.is_empty(), "events follow on the state of the jump");
        let JumpTo { mut entries, members } = to;
        entries.sort_unstable_by_key(|(key, _)| *key);
        self.count_servers(members.iter().map(|(_, member)| member)).await?;
        let mut shown = Vec::new();
        for event_type in shown_types() {
            let key = self.rooms.db.find_state_key(event_type, "").await?;
            let held = key.and_then(|key| entries.binary_search_by_key(&key.nid, |(key, _)| *key).ok());
            shown.push((
                event_type,
                match held {
                    Some(index) => Some(Arc::clone(&self.event(entries[index].1.event_nid).await?.pdu)),
                    None => None,
                },
            ));
        }
        self.room.absent.clear();
        self.rework.get_or_insert_default().jump = Some(Jumping { entries, members, shown });
        Ok(())
    }
}

impl Making<'_> {
    pub(super) fn jump(&mut self, Jumping { entries, members, shown }: Jumping, pos: Position) -> Result<(), Error> {
        let room = self.room.nid;
        self.write.touch(Touch::Jump { room });
        let state = self.view.state.jump(pos, entries);
        let jump = Jump { pos, before: self.view.state.entries().to_vec(), after: state.entries().to_vec() };
        self.head.changes += i64::try_from(jump.rows().count()).unwrap_or(i64::MAX);
        self.head.saved_changes = self.head.changes;
        self.write.push(
            states::StateCheckpointColumns {
                room_nid: room,
                pos,
                changes: self.head.changes,
                hash: state.hash().to_bytes().to_vec(),
                blob: checkpoint::encode(&jump.after),
                before: Some(checkpoint::encode(&jump.before)),
            }
            .row(),
        );
        for (key, member) in &members {
            let [before, now] = [&self.view.state, &state].map(|state| state.get(*key).map(Held::from));
            self.change_member(member, (before, now), pos, None)?;
        }
        for (event_type, event) in &shown {
            self.changes.columns.show((event_type, ""), event.as_deref());
        }
        let heroes = Heroes::first_of(&state);
        self.changes.heroes_changed |= heroes != self.view.heroes;
        self.view.heroes = heroes;
        self.view.state = state;
        self.view.jumps.push(pos);
        self.head.state_pos = pos;
        self.head.last_pos = pos;
        self.has_jumped = true;
        Ok(())
    }
}
