//! The rooms of an answer: those with news, and the invites, knocks and departures among them.
//!
//! Promise: a room that is damaged in the database is left out, and the others are sent as if it did not exist. A room
//! whose state no longer fits into the answer is left out too. The token names the rooms that were left out
//! ([`Hints`]). Once such a room can be sent, the client gets it whole, even if it had parts of it before. So nothing
//! is lost, and this needs no row and no memory of ours.

mod stripped;
mod writing;

use std::{collections::BTreeSet, sync::Arc};

use sabha_federation::state_log::Membership;

use super::{Look, account::AccountDataNews, joined};
use crate::{
    room::{
        Room,
        memberships::MemberEntry,
        read::{visibility::Sight, whole::LatestEvents},
    },
    store::{Error, Position, RoomNid},
    sync::{
        token::{Hints, MAX_HINTED_ROOMS},
        visit::ToVisit,
    },
};

/// A room that the user is or was in, and how far the client knows it.
pub(super) struct RoomLook {
    pub(super) room: Arc<Room>,
    pub(super) sight: Arc<Sight>,
    /// The position up to which the client has the room; `None` if it has nothing of it.
    pub(super) since: Option<Position>,
    /// The position up to which the client may see the room.
    pub(super) upto: Position,
    /// True if the answer has nothing of the room but the end of an invitation, a knock or a ban, at `upto`: the user
    /// was not in the room meanwhile.
    pub(super) only_departure: bool,
    /// The latest events of a room that is new to the client, if they were read together with those of others.
    pub(super) latest: Option<LatestEvents>,
}

/// The rooms to look at, by section of the answer.
#[derive(Default)]
pub(super) struct RoomNews {
    joined: Vec<RoomLook>,
    left: Vec<RoomLook>,
    invited: Vec<MemberEntry>,
    knocked: Vec<MemberEntry>,
    /// Rooms that the user has joined since the client's last request.
    pub(super) newly_joined: Vec<Arc<Room>>,
    /// The part of the client's next token that is about single rooms.
    pub(super) hints: Hints,
}

impl RoomNews {
    /// Finds the rooms with news among those to visit. Rooms in `left_out` are skipped.
    pub(super) async fn load(
        look: &Look<'_>,
        account_data: &AccountDataNews,
        mut visit: ToVisit,
        left_out: BTreeSet<RoomNid>,
    ) -> Result<Self, Error> {
        let mut news = Self { hints: Hints { left_out, ..Hints::default() }, ..Self::default() };
        // The client believes this until it is told otherwise, even if an earlier start of the server told it.
        news.hints.typing = look.hints().map(|hints| hints.typing.clone()).unwrap_or_default();
        for room in look.app.rooms.unreadable_memberships(look.caller.user.nid).await? {
            news.leave_out(look, room)?;
        }
        visit.add(account_data.rooms());
        for entry in visit.memberships(look.app, look.caller.user.nid).await? {
            if news.hints.left_out.contains(&entry.room) {
                continue;
            }
            let room = entry.room;
            let added = news.add(look, account_data, entry).await;
            if look.app.rooms.contain(room, added)?.is_none() {
                news.leave_out(look, room)?;
            }
        }
        Ok(news)
    }

    /// Leaves a damaged room out of the answer, and records that in the client's token.
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
        self.note_membership(entry.room, entry.membership);
        if entry.forgotten && (look.is_initial() || !changed) {
            return Ok(());
        }
        match entry.membership {
            Membership::Join => self.add_joined(look, account_data, &entry, changed).await?,
            Membership::Invite if changed => self.invited.push(entry),
            Membership::Knock if changed => self.knocked.push(entry),
            Membership::Leave | Membership::Ban => self.add_left(look, &entry, changed).await?,
            Membership::Invite | Membership::Knock => {}
        }
        Ok(())
    }

    /// Adds a room whose entry in memory is newer than this answer, in its state at the end of the answer. Later
    /// changes belong to the next answer.
    async fn add_as_of_answer(
        &mut self,
        look: &Look<'_>,
        account_data: &AccountDataNews,
        entry: &MemberEntry,
    ) -> Result<(), Error> {
        let room = look.app.rooms.by_nid(entry.room).await?;
        let sight = look.app.rooms.sight(&room, &look.caller.user).await?;
        let Some((pos, membership)) = sight.latest(look.upto) else { return Ok(()) };
        self.note_membership(room.nid, membership);
        let then = MemberEntry { pos, membership, forgotten: false, ..entry.clone() };
        let is_news = pos > look.since_pos() || look.was_left_out(entry.room);
        match membership {
            Membership::Join => self.add_joined(look, account_data, &then, true).await,
            Membership::Leave | Membership::Ban => self.add_left(look, &then, is_news).await,
            // The next answer has the outcome of the invitation. Only this answer can say that the user was out of the
            // room before it.
            Membership::Invite | Membership::Knock if look.has_had(&sight, room.nid).is_some() => {
                self.add_left(look, &then, is_news).await
            }
            Membership::Invite | Membership::Knock => Ok(()),
        }
    }

    /// Notes the user's membership as of this answer. A client shows nobody as typing in a room that the user is not in. One
    /// that is told later that the user is out still shows what it was told before: the user may be in again by then.
    fn note_membership(&mut self, room: RoomNid, membership: Membership) {
        if membership != Membership::Join {
            self.hints.typing.remove(&room);
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
        if !look.wants(&room) {
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
        self.joined.push(RoomLook { room, sight, since, upto: look.upto, only_departure: false, latest: None });
        Ok(())
    }

    /// Adds a room whose invitation or knock the answer does not show, if the client takes the user for joined: the next answer
    /// does not know that any more.
    async fn add_departure_before(&mut self, look: &Look<'_>, entry: &MemberEntry) -> Result<(), Error> {
        if look.is_initial() || look.was_left_out(entry.room) {
            return Ok(());
        }
        let room = look.app.rooms.by_nid(entry.room).await?;
        if !look.wants(&room) {
            return Ok(());
        }
        let sight = look.app.rooms.sight(&room, &look.caller.user).await?;
        match look.has_had(&sight, room.nid) {
            Some(_) => self.add_left(look, entry, true).await,
            None => Ok(()),
        }
    }

    async fn add_left(&mut self, look: &Look<'_>, entry: &MemberEntry, changed: bool) -> Result<(), Error> {
        let include = if look.is_initial() { look.request.filter.room.include_leave } else { changed };
        if !include {
            return Ok(());
        }
        let room = look.app.rooms.by_nid(entry.room).await?;
        if !look.wants(&room) {
            return Ok(());
        }
        let sight = look.app.rooms.sight(&room, &look.caller.user).await?;
        let since = look.has_had(&sight, room.nid);
        // A room that was left out is sent up to where the user was in it, whenever they left.
        let is_news = |until: &Position| *until > look.since_pos() || look.was_left_out(room.nid);
        let joined_until = sight.joined_until(entry.pos).filter(|until| is_news(until) && !entry.forgotten);
        let only_departure = joined_until.is_none();
        let upto = joined_until.unwrap_or(entry.pos);
        self.left.push(RoomLook { room, sight, since, upto, only_departure, latest: None });
        Ok(())
    }
}
