//! The end of a room as it is outside its turn.

use std::sync::Arc;

use sabha_federation::{graph::Extremities, model::GraphReader as _, receive::HeadView, sides, state_log::StateHash};

use crate::{
    room::write::RoomWriter,
    store::{Error, Position},
};

/// The end of a room as it was in a turn.
pub(super) struct Seen {
    extremities: Extremities,
    pub(super) state_pos: Position,
    hash: StateHash,
    reject_epoch: i64,
}

impl Seen {
    pub(super) fn of(writer: &RoomWriter<'_>) -> Self {
        let HeadView { extremities, state_pos, hash, reject_epoch, .. } = writer.head();
        Self { extremities: extremities.clone(), state_pos, hash, reject_epoch }
    }

    pub(super) fn view(&self) -> HeadView<'_> {
        let Self { extremities, state_pos, hash, reject_epoch } = self;
        // No room is partial yet.
        HeadView { extremities, state_pos: *state_pos, hash: *hash, reject_epoch: *reject_epoch, partial: false }
    }
}

impl RoomWriter<'_> {
    /// Finds the states after forward extremities that were loaded. A row says only the state before its event.
    pub(super) async fn know_extremities(&mut self) -> Result<(), Error> {
        let unknown = self.extremities_without_state();
        if unknown.is_empty() {
            return Ok(());
        }
        let (rooms, room) = (self.rooms, Arc::clone(&self.room));
        let reads = rooms.reads(&room);
        let mut known = Vec::with_capacity(unknown.len());
        for node in reads.nodes(&unknown).await? {
            // Its side was stored with it, so no new one is made.
            let no_side = || {
                let text = format!("{}: the state after event {} is missing", room.room_id, node.nid.0);
                Err(Error::damaged("room", text))
            };
            let after = sides::after(&reads, &rooms.state_hash_key, &node, no_side).await?;
            known.push((node.nid, after.at));
        }
        self.set_states_after(&known);
        Ok(())
    }
}
