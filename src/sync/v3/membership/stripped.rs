//! Writing the invitations and knocks of an answer. Their stripped state is only in the database, and is read here for many
//! rooms at once.

use super::RoomNews;
use crate::{
    room::{
        memberships::MemberEntry,
        read::stripped::{AT_ONCE, MOST_BYTES, Stripped},
    },
    store::Error,
    sync::{
        json::Object,
        v3::{Look, SyncError, size::Size},
    },
};

impl RoomNews {
    /// Writes the sections `invite` and `knock`, if they have any room. A room that they do not show is among those that the
    /// user has left, if the client still takes the user for joined.
    pub(super) async fn write_stripped(
        &mut self,
        look: &Look<'_>,
        size: &mut Size<'_>,
        sections: &mut Object<'_>,
    ) -> Result<(), SyncError> {
        for (name, field, entries) in [
            ("invite", "invite_state", std::mem::take(&mut self.invited)),
            ("knock", "knock_state", std::mem::take(&mut self.knocked)),
        ] {
            let before = sections.mark();
            let mut json = Object::begin(sections.key(name));
            for entries in entries.chunks(AT_ONCE) {
                // Judged before they are read, because nothing large is held during the wait.
                if !size.allows(json.out.len() + entries.len() * MOST_BYTES) {
                    size.may_be_large().await?;
                }
                let mut states = look.app.rooms.stripped_states(look.caller.user.nid, entries).await?;
                for entry in entries {
                    let written = match states.remove(&entry.room) {
                        Some(state) => write_room(look, entry, state, field, &mut json).await,
                        // A membership that was replaced meanwhile is for the next answer.
                        None => Ok(false),
                    };
                    let told = match written {
                        Ok(false) => self.add_departure_before(look, entry).await,
                        written => written.map(drop),
                    };
                    if look.app.rooms.contain(entry.room, told)?.is_none() {
                        self.leave_out(look, entry.room)?;
                    }
                }
            }
            if !json.end() {
                sections.back_to(before);
            }
        }
        Ok(())
    }
}

/// Writes a room that the user is invited to or has knocked on, unless the invitation is from a user whom they ignore. Returns
/// whether it is written.
async fn write_room(
    look: &Look<'_>,
    entry: &MemberEntry,
    state: Result<Stripped, Error>,
    field: &str,
    json: &mut Object<'_>,
) -> Result<bool, Error> {
    let (room, state) = (look.app.rooms.by_nid(entry.room).await?, state?);
    let ignored = look.ignored().await?;
    if !look.wants(&room) || state.sender_of(look.caller.user_id()).is_some_and(|sender| ignored.contains(sender)) {
        return Ok(false);
    }
    let events = look.app.rooms.show_stripped(&room, state).await?;
    let mut object = Object::begin(json.key(room.room_id.as_str()));
    let mut stripped = Object::begin(object.key(field));
    stripped.raw("events", &events);
    stripped.end();
    object.end();
    Ok(true)
}
