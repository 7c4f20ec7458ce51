//! Writing the joined and left rooms of an answer, after those that are new to the client were read together.

use ruma::api::client::filter::LazyLoadOptions;

use super::{RoomLook, RoomNews};
use crate::{
    room::{
        Room,
        read::whole::{AT_ONCE, ShownMembers},
    },
    store::Error,
    sync::{
        json::Object,
        token::MAX_HINTED_ROOMS,
        v3::{
            Look, SyncError,
            account::AccountDataNews,
            joined::{self, RoomPart},
            size::Size,
            timeline::timeline_limit,
        },
    },
};

impl RoomNews {
    /// Returns whether any room is sent whole, with all of its state.
    pub(in crate::sync::v3) fn has_whole_room(&self) -> bool {
        self.joined.iter().chain(&self.left).any(|room| room.since.is_none() && !room.only_departure)
    }

    /// Writes `rooms`. Returns whether it has any content.
    pub(in crate::sync::v3) async fn write(
        &mut self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        size: &mut Size<'_>,
        object: &mut Object<'_>,
    ) -> Result<bool, SyncError> {
        let before = object.mark();
        let mut sections = Object::begin(object.key("rooms"));
        // First, because it may find rooms that the user has left.
        self.write_stripped(look, size, &mut sections).await?;
        for (name, mut rooms, section) in [
            ("join", std::mem::take(&mut self.joined), joined::Section::Joined),
            ("leave", std::mem::take(&mut self.left), joined::Section::Left),
        ] {
            let before = sections.mark();
            let mut json = Object::begin(sections.key(name));
            for chunk in rooms.chunks_mut(AT_ONCE) {
                read_whole(look, chunk).await?;
                for room in &*chunk {
                    self.write_room(look, account_data, size, (room, section), &mut json).await?;
                }
                chunk.iter_mut().for_each(|room| room.latest = None);
            }
            if !json.end() {
                sections.back_to(before);
            }
        }
        let any = sections.end();
        if !any {
            object.back_to(before);
        }
        Ok(any)
    }

    /// Writes one room, and records in the hints what the next token must say about it.
    async fn write_room(
        &mut self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        size: &mut Size<'_>,
        (room, section): (&RoomLook, joined::Section),
        json: &mut Object<'_>,
    ) -> Result<(), SyncError> {
        let before = json.mark();
        let mut part = joined::write(look, room, account_data, section, json).await;
        if !size.allows(json.out.len()) {
            // The bytes are not kept during the wait.
            json.back_to(before);
            json.out.shrink_to_fit();
            size.may_be_large().await?;
            part = joined::write(look, room, account_data, section, json).await;
        }
        let nid = room.room.nid;
        match look.app.rooms.contain(nid, part)? {
            Some(RoomPart::Written { bytes, typing }) => {
                look.budgets.spend(bytes);
                self.hints.note_typing(nid, typing);
            }
            Some(RoomPart::NoNews) => json.back_to(before),
            Some(RoomPart::DoesNotFit) => {
                json.back_to(before);
                self.leave_for_next(look, &room.room)?;
            }
            None => {
                json.back_to(before);
                self.leave_out(look, nid)?;
            }
        }
        Ok(())
    }

    /// Leaves a room that does not fit out of this answer. The client's token records that, and the next answer has the
    /// room whole.
    fn leave_for_next(&mut self, look: &Look<'_>, room: &Room) -> Result<(), SyncError> {
        if !look.was_left_out(room.nid) {
            let user_id = look.caller.user_id();
            tracing::warn!(%user_id, room_id = %room.room_id, "left a room for the next sync: its state did not fit into this one");
        }
        self.hints.left_out.insert(room.nid);
        if self.hints.left_out.len() > MAX_HINTED_ROOMS { Err(SyncError::TooMuchState) } else { Ok(()) }
    }
}

/// Reads what the answer shows of those of these rooms that are new to the client, many rooms at once.
async fn read_whole(look: &Look<'_>, rooms: &mut [RoomLook]) -> Result<(), Error> {
    let is_whole = |room: &&RoomLook| room.since.is_none() && !room.only_departure && room.upto == look.upto;
    let whole: Vec<&Room> = rooms.iter().filter(is_whole).map(|room| &*room.room).collect();
    if whole.len() < 2 {
        return Ok(());
    }
    let filter = &look.request.filter.room;
    let members = match filter.state.lazy_load {
        LazyLoadOptions::Disabled => ShownMembers::All,
        LazyLoadOptions::Enabled { .. } => ShownMembers::Heroes,
    };
    // A filter that leaves out some events reads them page by page.
    let limit = if filter.timeline.accepts_all() { timeline_limit(look) } else { 0 };
    let mut latest = look.app.rooms.read_whole(&whole, (look.upto, limit), members).await?;
    rooms.iter_mut().for_each(|room| room.latest = latest.remove(&room.room.nid));
    Ok(())
}
