//! The rooms of an answer: which ones have news, and the invites, knocks and departures among them.

use std::sync::Arc;

use super::{
    Look,
    account::AccountDataNews,
    joined::{self, Written},
};
use crate::{
    room::{Room, memberships::MemberEntry, state_log::Membership, visibility::Sight},
    store::{Error, Position},
    sync::{filter::accepts_room, json::Object},
};

/// A room that the user is, or was, in, and where the client's knowledge of it ends.
pub(super) struct RoomLook {
    pub(super) room: Arc<Room>,
    pub(super) sight: Arc<Sight>,
    /// What the client has seen of the room; `None` if nothing.
    pub(super) since: Option<Position>,
    /// Up to where it may see.
    pub(super) upto: Position,
    /// Nothing of the room but the end of an invitation, a knock or a ban, at `upto`: the user was not in it meanwhile.
    pub(super) only_departure: bool,
}

/// The rooms to look at, by section of the answer.
#[derive(Default)]
pub(super) struct RoomNews {
    pub(super) joined: Vec<RoomLook>,
    pub(super) left: Vec<RoomLook>,
    invited: Vec<MemberEntry>,
    knocked: Vec<MemberEntry>,
    /// Rooms that the user has joined since the client last asked.
    pub(super) newly_joined: Vec<Arc<Room>>,
}

impl RoomNews {
    pub(super) async fn load(look: &Look<'_>, account_data: &AccountDataNews) -> Result<Self, Error> {
        let app = look.app;
        let mut news = Self::default();
        for entry in app.rooms.memberships(look.caller.user.nid).await? {
            let changed = entry.pos > look.since_pos();
            if entry.pos > look.upto {
                // What is committed after this answer belongs to the next one; until then the user may have been joined.
                news.add_joined(look, account_data, &entry, true).await?;
                continue;
            }
            if entry.forgotten && (look.is_initial() || !changed) {
                continue;
            }
            match entry.membership {
                Membership::Join => news.add_joined(look, account_data, &entry, changed).await?,
                Membership::Invite if changed && !is_from_ignored(look, &entry).await? => news.invited.push(entry),
                Membership::Knock if changed => news.knocked.push(entry),
                Membership::Leave | Membership::Ban => news.add_left(look, &entry, changed).await?,
                Membership::Invite | Membership::Knock => {}
            }
        }
        Ok(news)
    }

    async fn add_joined(
        &mut self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        entry: &MemberEntry,
        changed: bool,
    ) -> Result<(), Error> {
        let app = look.app;
        let room = app.rooms.by_nid(entry.room).await?;
        if !is_wanted(look, &room) {
            return Ok(());
        }
        let full = look.is_initial() || look.request.full_state;
        if !full
            && !changed
            && room.last_pos() <= look.since_pos()
            && !joined::has_ephemeral_news(look, &room).await?
            && !joined::has_read_on(look, &room).await?
            && account_data.of_room(look, room.nid).is_empty()
        {
            return Ok(());
        }
        let sight = app.rooms.sight(&room, &look.caller.user).await?;
        if sight.membership_at(look.upto) != Some(Membership::Join) {
            // The join itself is committed after this answer.
            return Ok(());
        }
        let was_joined = look.since.filter(|since| sight.membership_at(since.position) == Some(Membership::Join));
        if was_joined.is_none() && !look.is_initial() {
            self.newly_joined.push(Arc::clone(&room));
        }
        let since = was_joined.map(|since| since.position);
        self.joined.push(RoomLook { room, sight, since, upto: look.upto, only_departure: false });
        Ok(())
    }

    async fn add_left(&mut self, look: &Look<'_>, entry: &MemberEntry, changed: bool) -> Result<(), Error> {
        let include = if look.is_initial() { look.request.filter.room.include_leave } else { changed };
        if !include {
            return Ok(());
        }
        let room = look.app.rooms.by_nid(entry.room).await?;
        if !is_wanted(look, &room) {
            return Ok(());
        }
        let sight = look.app.rooms.sight(&room, &look.caller.user).await?;
        let since = look.since.filter(|since| sight.membership_at(since.position) == Some(Membership::Join));
        let joined_until = sight.joined_until(entry.pos).filter(|until| *until > look.since_pos() && !entry.forgotten);
        let only_departure = joined_until.is_none();
        let upto = joined_until.unwrap_or(entry.pos);
        self.left.push(RoomLook { room, sight, since: since.map(|since| since.position), upto, only_departure });
        Ok(())
    }

    /// Writes `rooms`; whether there was anything.
    pub(super) async fn write(
        &self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        object: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let mut sections: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut section = Section::new();
        for room in &self.joined {
            section.add(joined::write(look, room, account_data, joined::Section::Joined).await?);
        }
        sections.extend(section.end("join"));
        let mut section = Section::new();
        for room in &self.left {
            section.add(joined::write(look, room, account_data, joined::Section::Left).await?);
        }
        sections.extend(section.end("leave"));
        sections.extend(self.stripped(look, &self.invited, "invite_state").await?.end("invite"));
        sections.extend(self.stripped(look, &self.knocked, "knock_state").await?.end("knock"));
        if sections.is_empty() {
            return Ok(false);
        }
        let mut rooms = Object::begin(object.key("rooms"));
        for (name, json) in sections {
            rooms.key(name).extend_from_slice(&json);
        }
        rooms.end();
        Ok(true)
    }

    async fn stripped(&self, look: &Look<'_>, entries: &[MemberEntry], field: &str) -> Result<Section, Error> {
        let mut section = Section::new();
        for entry in entries {
            let room = look.app.rooms.by_nid(entry.room).await?;
            if !is_wanted(look, &room) {
                continue;
            }
            let mut json = Vec::with_capacity(1024);
            let mut object = Object::begin(&mut json);
            let state = entry.invite_state.as_deref().unwrap_or("[]");
            object.raw(field, &format!(r#"{{"events":{state}}}"#));
            object.end();
            section.add(Some(Written { room_id: room.room_id.as_str().to_owned(), json }));
        }
        Ok(section)
    }
}

/// Whether the user was invited by somebody whom they ignore: such invitations are not shown.
async fn is_from_ignored(look: &Look<'_>, entry: &MemberEntry) -> Result<bool, Error> {
    let ignored = look.ignored().await?;
    if ignored.is_empty() {
        return Ok(false);
    }
    let room = look.app.rooms.by_nid(entry.room).await?;
    let invite = look.app.rooms.events.get(&room, entry.event_nid).await?;
    Ok(ignored.contains(invite.sender()))
}

fn is_wanted(look: &Look<'_>, room: &Room) -> bool {
    let filter = &look.request.filter.room;
    accepts_room(filter.rooms.as_deref(), &filter.not_rooms, &room.room_id)
}

/// Rooms by their ID, as JSON.
struct Section {
    json: Vec<u8>,
    empty: bool,
}

impl Section {
    fn new() -> Self {
        Self { json: Vec::new(), empty: true }
    }

    fn add(&mut self, written: Option<Written>) {
        let Some(Written { room_id, json }) = written else { return };
        self.json.push(if self.empty { b'{' } else { b',' });
        self.empty = false;
        crate::room::event::write_string(&mut self.json, &room_id);
        self.json.push(b':');
        self.json.extend_from_slice(&json);
    }

    fn end(mut self, name: &'static str) -> Option<(&'static str, Vec<u8>)> {
        if self.empty {
            return None;
        }
        self.json.push(b'}');
        Some((name, self.json))
    }
}
