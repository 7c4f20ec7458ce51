//! The users whose device lists a client must fetch again or may forget, between two positions of the server.
//!
//! `/sync` and `/keys/changes` both use this. Room filters do not matter here: a client encrypts for a user whichever
//! rooms it asked to see.

use std::{collections::BTreeSet, sync::Arc};

use sabha_federation::state_log::{Membership, StateEntry};

use super::visit::ToVisit;
use crate::{
    app::App,
    room::{Room, memberships::MemberEntry},
    shares::large_answers::LARGE_EVENTS,
    store::{Error, Position, RoomNid, vocabulary::User},
};

/// The changes of the device lists that a user sees. No user is in both `changed` and `left`.
#[derive(Debug, Default)]
pub struct DeviceLists {
    /// Users whose keys changed, or who now share a room with the user and did not before.
    pub changed: BTreeSet<String>,
    /// Users who shared a room with the user and no longer do.
    pub left: BTreeSet<String>,
    /// Users who now share a room with the user in which they did not meet before; all of them are in `changed` too.
    pub met: BTreeSet<String>,
    /// Rooms that could not be read, and that are missing from the lists.
    pub left_out: BTreeSet<RoomNid>,
}

/// The rooms that may change the device lists that a user sees. Finding them reads no event.
#[derive(Debug)]
pub struct ChangedRooms {
    since: Position,
    upto: Position,
    rooms: Vec<ChangedRoom>,
    left_out: BTreeSet<RoomNid>,
}

#[derive(Debug)]
struct ChangedRoom {
    room: Arc<Room>,
    /// True if the user was in it at the beginning, as far as the client knows.
    was_in: bool,
    /// True if the user is in it at the end.
    is_in: bool,
}

impl ChangedRooms {
    /// The rooms of `user` with changes in (`since`, `upto`], which are among those to visit. The client knows nothing of
    /// the rooms in `left_out`, which are among them too.
    ///
    /// # Errors
    /// When the database fails; a damaged room is left out.
    pub async fn find(
        app: &App,
        user: &User,
        (since, upto): (Position, Position),
        left_out: &BTreeSet<RoomNid>,
        visit: &ToVisit,
    ) -> Result<Self, Error> {
        let mut changed = Self { since, upto, rooms: Vec::new(), left_out: BTreeSet::new() };
        if since >= upto && left_out.is_empty() {
            return Ok(changed);
        }
        for entry in visit.memberships(app, user.nid).await? {
            // A room may be visited for other news: for those, not even the future below is made.
            let is_quiet = |room: Arc<Room>| entry.pos <= since && room.last_pos() <= since;
            if !left_out.contains(&entry.room) && app.rooms.in_memory(entry.room).is_some_and(is_quiet) {
                continue;
            }
            let found = find_changed(app, user, &entry, (since, upto), left_out.contains(&entry.room)).await;
            match app.rooms.contain(entry.room, found)? {
                Some(room) => changed.rooms.extend(room),
                None => _ = changed.left_out.insert(entry.room),
            }
        }
        Ok(changed)
    }

    /// Returns whether so much state changed in these rooms that the answer may be large.
    pub fn may_be_large(&self) -> bool {
        let events = self.rooms.iter().map(|changed| match (changed.was_in, changed.is_in) {
            (true, true) => changed.room.state_changed_at_most(self.since),
            // All members are looked up, and for a new room the whole state is sent.
            _ => changed.room.state_changed_at_most(Position::BEFORE_ALL),
        });
        events.sum::<usize>() > LARGE_EVENTS
    }
}

/// The room of a membership, if anything in it may change the device lists.
async fn find_changed(
    app: &App,
    user: &User,
    entry: &MemberEntry,
    (since, upto): (Position, Position),
    was_left_out: bool,
) -> Result<Option<ChangedRoom>, Error> {
    let is_new = entry.pos > since || was_left_out;
    if !is_new && entry.membership != Membership::Join {
        return Ok(None);
    }
    let room = app.rooms.by_nid(entry.room).await?;
    if room.last_pos() <= since && !was_left_out {
        return Ok(None);
    }
    if !is_new {
        return Ok(Some(ChangedRoom { room, was_in: true, is_in: true }));
    }
    let sight = app.rooms.sight(&room, user).await?;
    let is_joined = |at| sight.membership_at(at) == Some(Membership::Join);
    let (was_in, is_in) = (is_joined(since) && !was_left_out, is_joined(upto));
    Ok((was_in || is_in).then_some(ChangedRoom { room, was_in, is_in }))
}

impl DeviceLists {
    /// Collects the changes in these rooms, and the changed keys of users who share any room with the user.
    ///
    /// # Errors
    /// When the database fails; a damaged room is left out.
    pub async fn of(app: &App, user: &User, changed: ChangedRooms) -> Result<Self, Error> {
        let ChangedRooms { since, upto, rooms, left_out } = changed;
        let mut lists = Self { left_out, ..Self::default() };
        if since < upto {
            let keys = app.keys.device_lists_changed(&app.rooms, user.nid, since, upto).await?;
            lists.changed.extend(keys.iter().map(|user_id| user_id.as_str().to_owned()));
        }
        for changed in &rooms {
            let added = lists.add_room(app, user, changed, (since, upto)).await;
            if app.rooms.contain(changed.room.nid, added)?.is_none() {
                lists.left_out.insert(changed.room.nid);
            }
        }
        lists.changed.extend(lists.met.iter().cloned());
        for user_id in std::mem::take(&mut lists.left) {
            if !lists.changed.contains(&user_id) && !still_shares(app, user, &user_id).await? {
                lists.left.insert(user_id);
            }
        }
        Ok(lists)
    }

    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }

    /// Adds the users who began or ceased to share this room with the user.
    async fn add_room(
        &mut self,
        app: &App,
        user: &User,
        changed: &ChangedRoom,
        (since, upto): (Position, Position),
    ) -> Result<(), Error> {
        let room = &changed.room;
        match (changed.was_in, changed.is_in) {
            (true, true) => self.add_changes(app, user, room, since, upto).await?,
            (false, true) => self.met.extend(others(app, user, room, upto).await?),
            // A user who joined after `since` was never on the client's list because of this room.
            (true, false) => self.left.extend(others(app, user, room, since).await?),
            (false, false) => {}
        }
        Ok(())
    }

    /// Adds the users who joined or left a room that the user was in at both positions.
    async fn add_changes(
        &mut self,
        app: &App,
        user: &User,
        room: &Room,
        since: Position,
        upto: Position,
    ) -> Result<(), Error> {
        for (key, entry) in app.rooms.state_changes(room, since, upto).await? {
            let Some(entry) = entry.filter(|entry| entry.membership.is_some()) else { continue };
            let is_joined = |entry: &StateEntry| entry.membership == Some(Membership::Join);
            let was_in = app.rooms.entry_at(room, key, since).await?.is_some_and(|entry| is_joined(&entry));
            let event = app.rooms.events.get(room, entry.event_nid).await?;
            let Some(user_id) = event.pdu.state_key.clone().filter(|id| id != user.user_id.as_str()) else { continue };
            match (was_in, is_joined(&entry)) {
                (false, true) => _ = self.met.insert(user_id),
                (true, false) => _ = self.left.insert(user_id),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The other members of a room.
async fn others(app: &App, user: &User, room: &Room, at: Position) -> Result<Vec<String>, Error> {
    let events = app.rooms.member_events(room, at, |membership| membership == Membership::Join).await?;
    let own = user.user_id.as_str();
    Ok(events.iter().filter_map(|event| event.pdu.state_key.clone()).filter(|user_id| user_id != own).collect())
}

async fn still_shares(app: &App, user: &User, user_id: &str) -> Result<bool, Error> {
    let Ok(user_id) = ruma::UserId::parse(user_id) else { return Ok(false) };
    match app.db.find_user(&user_id).await? {
        Some(other) => app.rooms.share_a_room(user.nid, other.nid).await,
        None => Ok(false),
    }
}
