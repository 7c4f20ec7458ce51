//! The end of a room as it is outside its turn.

use std::sync::Arc;

use sabha_federation::{
    graph::Extremities,
    model::GraphReader as _,
    receive::{HeadView, Ids as _},
    sides::{self, Side},
    state_log::StateHash,
};

use crate::{
    room::{
        Room, Rooms,
        write::{RoomWriter, restate::Restatement},
    },
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

impl Rooms {
    /// Waits for the turn of the room, and finds the states after its forward extremities that were loaded.
    pub(super) async fn enter_knowing(&self, room: &Arc<Room>) -> Result<RoomWriter<'_>, Error> {
        loop {
            let mut writer = self.enter(room).await?;
            let sides = writer.know_extremities().await?;
            if sides.is_empty() {
                return Ok(writer);
            }
            // They are found the next time.
            writer.restate(Restatement { sides, ..Restatement::default() }).await?;
            writer.commit(None)?.wait().await?;
        }
    }
}

impl RoomWriter<'_> {
    /// Finds the states after forward extremities that were loaded. A row says only the state before its event. Returns the
    /// sides that must be stored first; nothing is known then.
    ///
    /// Usually there are none, because the side of a forward extremity is stored with it. But the state after it may have been
    /// that of the log at a position which is not in memory any more.
    async fn know_extremities(&mut self) -> Result<Vec<Arc<Side>>, Error> {
        let unknown = self.extremities_without_state();
        if unknown.is_empty() {
            return Ok(Vec::new());
        }
        let (rooms, room) = (self.rooms, Arc::clone(&self.room));
        let reads = rooms.reads(&room);
        let (mut known, mut new) = (Vec::with_capacity(unknown.len()), Vec::new());
        for node in reads.nodes(&unknown).await? {
            let after = sides::after(&reads, &rooms.state_hash_key, &node, || reads.side()).await?;
            known.push((node.nid, after.at));
            new.extend(after.side);
        }
        if new.is_empty() {
            self.set_states_after(&known);
        }
        Ok(new)
    }
}
