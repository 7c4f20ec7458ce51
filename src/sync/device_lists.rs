//! Whose device lists a client must look up again, and whose it may forget, between two places in the order of everything.
//!
//! `/sync` and `/keys/changes` answer the same question, so they ask it here. Filters of rooms change nothing about it: a
//! client encrypts for a user whichever rooms it asked to see.

use std::collections::BTreeSet;

use crate::{
    app::App,
    room::{
        Room,
        memberships::MemberEntry,
        state_log::{Membership, StateEntry},
    },
    store::{Error, Position, RoomNid, vocabulary::User},
};

/// The changes of the device lists that a user sees. Nobody is in both.
#[derive(Debug, Default)]
pub struct DeviceLists {
    /// Users whose keys changed, or who now share a room with the user and did not before.
    pub changed: BTreeSet<String>,
    /// Users who shared a room with the user and no longer do.
    pub left: BTreeSet<String>,
    /// Users who now share a room with the user in which they did not meet before; all of them are in `changed` too.
    pub met: BTreeSet<String>,
    /// Rooms that could not be read: nothing of them is in the lists.
    pub left_out: BTreeSet<RoomNid>,
}

impl DeviceLists {
    /// The changes for `user` in (`since`, `upto`]. The client knows nothing of the rooms that were `left_out` before.
    ///
    /// # Errors
    /// When the database fails; a damaged room is left out.
    pub async fn between(
        app: &App,
        user: &User,
        (since, upto): (Position, Position),
        left_out: &BTreeSet<RoomNid>,
    ) -> Result<Self, Error> {
        let mut lists = Self::default();
        if since >= upto && left_out.is_empty() {
            return Ok(lists);
        }
        let changed = app.keys.device_lists_changed(&app.rooms, user.nid, since, upto).await?;
        lists.changed.extend(changed.iter().map(|user_id| user_id.as_str().to_owned()));
        for entry in app.rooms.memberships(user.nid).await? {
            let added = lists.add_room(app, user, &entry, (since, upto), left_out.contains(&entry.room)).await;
            if app.rooms.contain(entry.room, added)?.is_none() {
                lists.left_out.insert(entry.room);
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

    /// Adds the users who came to share this room with the user, and those who went.
    async fn add_room(
        &mut self,
        app: &App,
        user: &User,
        entry: &MemberEntry,
        (since, upto): (Position, Position),
        was_left_out: bool,
    ) -> Result<(), Error> {
        let is_new = entry.pos > since || was_left_out;
        if !is_new && entry.membership != Membership::Join {
            return Ok(());
        }
        let room = app.rooms.by_nid(entry.room).await?;
        if room.last_pos() <= since && !was_left_out {
            return Ok(());
        }
        let (was_in, is_in) = if is_new {
            let sight = app.rooms.sight(&room, user).await?;
            let is_joined = |at| sight.membership_at(at) == Some(Membership::Join);
            (is_joined(since) && !was_left_out, is_joined(upto))
        } else {
            (true, true)
        };
        match (was_in, is_in) {
            (true, true) => self.add_changes(app, user, &room, since, upto).await?,
            (false, true) => self.met.extend(others(app, user, &room, upto).await?),
            // Who came after `since` was never on the client's list because of this room.
            (true, false) => self.left.extend(others(app, user, &room, since).await?),
            (false, false) => {}
        }
        Ok(())
    }

    /// Adds the users who came into or left a room in which the user was at both ends.
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
