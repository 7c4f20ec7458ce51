//! The rooms of an answer: which ones have news, and the invites, knocks and departures among them.
//!
//! Promise: a room that is damaged in the database is left out, and the others are told as if it were not there. The token
//! says which rooms were left out ([`Hints`]). Once such a room can be read, the client is given it whole, whatever it may
//! have had of it before, so nothing is lost, and it needs no row and no memory of ours.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Look, SyncError,
    account::AccountDataNews,
    joined::{self, Written},
    size::Size,
};
use crate::{
    room::{Room, memberships::MemberEntry, state_log::Membership, visibility::Sight},
    store::{Error, Position, RoomNid},
    sync::{
        json::Object,
        token::{Hints, MAX_HINTED_ROOMS},
    },
};

/// A room that the user is, or was, in, and where the client's knowledge of it ends.
pub(super) struct RoomLook {
    pub(super) room: Arc<Room>,
    pub(super) sight: Arc<Sight>,
    /// Up to where the client has the room; `None` if it has nothing of it.
    pub(super) since: Option<Position>,
    /// Up to where it may see.
    pub(super) upto: Position,
    /// Nothing of the room but the end of an invitation, a knock or a ban, at `upto`: the user was not in it meanwhile.
    pub(super) only_departure: bool,
}

/// The rooms to look at, by section of the answer.
#[derive(Default)]
pub(super) struct RoomNews {
    joined: Vec<RoomLook>,
    left: Vec<RoomLook>,
    invited: Vec<MemberEntry>,
    knocked: Vec<MemberEntry>,
    /// Rooms that the user has joined since the client last asked.
    pub(super) newly_joined: Vec<Arc<Room>>,
    /// The part of the client's next token that is about single rooms.
    pub(super) hints: Hints,
}

impl RoomNews {
    /// Finds the rooms with news. Those that are `left_out` already are not looked at.
    pub(super) async fn load(
        look: &Look<'_>,
        account_data: &AccountDataNews,
        left_out: BTreeSet<RoomNid>,
    ) -> Result<Self, Error> {
        let mut news = Self { hints: Hints { left_out, ..Hints::default() }, ..Self::default() };
        // The client believes this until it is told otherwise, also when an earlier start of the server said so.
        news.hints.typing = look.hints().map(|hints| hints.typing.clone()).unwrap_or_default();
        for room in look.app.rooms.unreadable_memberships(look.caller.user.nid).await? {
            news.leave_out(look, room)?;
        }
        for entry in look.app.rooms.memberships(look.caller.user.nid).await? {
            if news.hints.left_out.contains(&entry.room) {
                continue;
            }
            let room = entry.room;
            if entry.membership != Membership::Join {
                news.hints.typing.remove(&room);
            }
            let added = news.add(look, account_data, entry).await;
            if look.app.rooms.contain(room, added)?.is_none() {
                news.leave_out(look, room)?;
            }
        }
        Ok(news)
    }

    /// The room is damaged: the answer is without it, and the client's token says so.
    fn leave_out(&mut self, look: &Look<'_>, room: RoomNid) -> Result<(), Error> {
        self.hints.left_out.insert(room);
        self.newly_joined.retain(|joined| joined.nid != room);
        if self.hints.left_out.len() > MAX_HINTED_ROOMS {
            let detail = format!("more than {MAX_HINTED_ROOMS} rooms of {}", look.caller.user_id());
            return Err(Error::damaged("database", detail));
        }
        Ok(())
    }

    async fn add(&mut self, look: &Look<'_>, account_data: &AccountDataNews, entry: MemberEntry) -> Result<(), Error> {
        let changed = entry.pos > look.since_pos() || look.was_left_out(entry.room);
        if entry.pos > look.upto {
            return self.add_as_of_answer(look, account_data, &entry).await;
        }
        if entry.forgotten && (look.is_initial() || !changed) {
            return Ok(());
        }
        match entry.membership {
            Membership::Join => self.add_joined(look, account_data, &entry, changed).await?,
            Membership::Invite if changed && !is_from_ignored(look, &entry).await? => self.invited.push(entry),
            Membership::Knock if changed => self.knocked.push(entry),
            Membership::Leave | Membership::Ban => self.add_left(look, &entry, changed).await?,
            Membership::Invite | Membership::Knock => {}
        }
        Ok(())
    }

    /// Adds a room whose entry in memory is newer than this answer, as it was at the end of the answer. What came after
    /// that belongs to the next one.
    async fn add_as_of_answer(
        &mut self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        entry: &MemberEntry,
    ) -> Result<(), Error> {
        let room = look.app.rooms.by_nid(entry.room).await?;
        let sight = look.app.rooms.sight(&room, &look.caller.user).await?;
        let Some((pos, membership)) = sight.latest(look.upto) else { return Ok(()) };
        let then = MemberEntry { pos, membership, forgotten: false, ..entry.clone() };
        let is_news = pos > look.since_pos() || look.was_left_out(entry.room);
        match membership {
            Membership::Join => self.add_joined(look, account_data, &then, true).await,
            Membership::Leave | Membership::Ban => self.add_left(look, &then, is_news).await,
            // The next answer tells what became of the invitation. That the user was out of the room before it can only
            // be told now.
            Membership::Invite | Membership::Knock if look.has_had(&sight, room.nid).is_some() => {
                self.add_left(look, &then, is_news).await
            }
            Membership::Invite | Membership::Knock => Ok(()),
        }
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
            && account_data.of_room(look, &room).is_empty()
        {
            return Ok(());
        }
        let sight = app.rooms.sight(&room, &look.caller.user).await?;
        if sight.membership_at(look.upto) != Some(Membership::Join) {
            // The join itself is committed after this answer.
            return Ok(());
        }
        let since = look.has_had(&sight, room.nid);
        if since.is_none() && !look.is_initial() {
            self.newly_joined.push(Arc::clone(&room));
        }
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
        let since = look.has_had(&sight, room.nid);
        // A room that was left out is given as far as the user was in it, whenever they left.
        let is_news = |until: &Position| *until > look.since_pos() || look.was_left_out(room.nid);
        let joined_until = sight.joined_until(entry.pos).filter(|until| is_news(until) && !entry.forgotten);
        let only_departure = joined_until.is_none();
        let upto = joined_until.unwrap_or(entry.pos);
        self.left.push(RoomLook { room, sight, since, upto, only_departure });
        Ok(())
    }

    /// Whether a room is given whole, with all of its state.
    pub(super) fn has_whole_room(&self) -> bool {
        self.joined.iter().chain(&self.left).any(|room| room.since.is_none() && !room.only_departure)
    }

    /// Writes `rooms`; whether there was anything.
    pub(super) async fn write(
        &mut self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        size: &mut Size<'_>,
        object: &mut Object<'_>,
    ) -> Result<bool, SyncError> {
        let joined = std::mem::take(&mut self.joined);
        let left = std::mem::take(&mut self.left);
        let mut sections: Vec<(&str, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for (name, rooms, section) in
            [("join", joined, joined::Section::Joined), ("leave", left, joined::Section::Left)]
        {
            let mut json = Section::new();
            for room in &rooms {
                let mut written = joined::write(look, room, account_data, section).await;
                if !size.allows(bytes + bytes_of(&written)) {
                    // Not kept while it waits.
                    drop(written);
                    size.may_be_large().await?;
                    written = joined::write(look, room, account_data, section).await;
                }
                bytes += bytes_of(&written);
                json.add(self.contained(look, room.room.nid, written)?);
            }
            sections.extend(json.end(name));
        }
        for (name, field, entries) in [
            ("invite", "invite_state", std::mem::take(&mut self.invited)),
            ("knock", "knock_state", std::mem::take(&mut self.knocked)),
        ] {
            let mut json = Section::new();
            for entry in &entries {
                let written = stripped(look, entry, field).await;
                json.add(self.contained(look, entry.room, written)?);
            }
            sections.extend(json.end(name));
        }
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

    /// Contains the damage of a room that was written, and takes over what the next token must say about it.
    fn contained(
        &mut self,
        look: &Look<'_>,
        room: RoomNid,
        written: Result<Option<Written>, Error>,
    ) -> Result<Option<Written>, Error> {
        let Some(written) = look.app.rooms.contain(room, written)? else {
            self.leave_out(look, room)?;
            return Ok(None);
        };
        match written.as_ref().and_then(|written| written.typing) {
            // A client that is told of typing in more rooms at once may keep it for too long after a restart.
            Some(true) if self.hints.typing.len() < MAX_HINTED_ROOMS => _ = self.hints.typing.insert(room),
            Some(false) => _ = self.hints.typing.remove(&room),
            Some(true) | None => {}
        }
        Ok(written)
    }
}

fn bytes_of(written: &Result<Option<Written>, Error>) -> usize {
    written.as_ref().ok().and_then(Option::as_ref).map_or(0, |written| written.json.len())
}

/// A room that the user is invited to or has knocked at.
async fn stripped(look: &Look<'_>, entry: &MemberEntry, field: &str) -> Result<Option<Written>, Error> {
    let room = look.app.rooms.by_nid(entry.room).await?;
    if !is_wanted(look, &room) {
        return Ok(None);
    }
    let mut json = Vec::with_capacity(1024);
    let mut object = Object::begin(&mut json);
    let state = entry.invite_state.as_deref().unwrap_or("[]");
    object.raw(field, &format!(r#"{{"events":{state}}}"#));
    object.end();
    Ok(Some(Written { room_id: room.room_id.as_str().to_owned(), json, typing: None }))
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
    look.request.filter.room.rooms.accepts(&room.room_id)
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
        let Some(Written { room_id, json, .. }) = written else { return };
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
