//! The profile of a user in a room, as their member events show it.
//!
//! Promise: once a change of a profile is committed, every room that the user is joined to will show it. The change and
//! the [job](crate::jobs) that brings it to the rooms are one commit, and [`Rooms::show_profile`] is that job. The job
//! reads the current profile, so the order of several changes does not matter. A join that began before the change and
//! commits after it is found among the [`Arrivals`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use ruma::{OwnedMxcUri, UserId, events::room::member::MembershipState};
use sabha_federation::{EventDraft, Pdu, state_log::Membership};
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};

use super::{AppendError, RoomWriter};
use crate::{
    report::Report,
    room::{Room, Rooms},
    store::{Committed, Error, RoomNid, UserNid, ids::lock, profiles as rows, vocabulary::User},
};

/// The number of rooms in which a member event is queued before we wait for the commits: enough to share an fsync, and
/// few enough to leave room in the committer's queue.
pub(in crate::room) const ROOMS_AT_ONCE: usize = 128;

/// The part of a profile that member events carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberProfile {
    pub displayname: Option<String>,
    pub avatar_url: Option<OwnedMxcUri>,
}

impl MemberProfile {
    /// The profile that a member event shows.
    pub(in crate::room) fn shown_in(member: &Pdu) -> Self {
        #[derive(Deserialize)]
        struct Content {
            displayname: Option<String>,
            avatar_url: Option<OwnedMxcUri>,
        }
        let content = serde_json::from_str::<Content>(member.content.get()).ok();
        content.map_or_else(Self::default, |Content { displayname, avatar_url }| Self { displayname, avatar_url })
    }

    /// Sets a stored field, of which `json` is the value.
    pub(super) fn set(&mut self, field: &str, json: &str) -> Result<(), Error> {
        let value: Value = serde_json::from_str(json).map_err(|error| Error::damaged("profile field", error))?;
        let text = value.as_str().map(str::to_owned);
        match field {
            "displayname" => self.displayname = text,
            _ => self.avatar_url = text.map(OwnedMxcUri::from),
        }
        Ok(())
    }
}

/// The draft of a member event.
pub(in crate::room) fn member_draft(
    user_id: &ruma::UserId,
    membership: MembershipState,
    profile: &MemberProfile,
    more: &[(&str, Option<Value>)],
) -> EventDraft {
    let mut content = json!({ "membership": membership });
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            content[name] = value;
        }
    };
    set("displayname", profile.displayname.clone().map(Value::from));
    set("avatar_url", profile.avatar_url.as_ref().map(|url| Value::from(url.as_str())));
    for (name, value) in more {
        set(name, value.clone());
    }
    EventDraft {
        event_type: "m.room.member".to_owned(),
        state_key: Some(user_id.as_str().to_owned()),
        content: to_raw_value(&content).expect("a JSON value serializes"),
        redacts: None,
    }
}

/// The rooms that users are joining: their profile is read already, and the join is not committed yet.
#[derive(Debug, Default)]
pub(in crate::room) struct Arrivals(Mutex<HashMap<UserNid, Vec<Arc<Room>>>>);

/// A join or a knock under way, until this is dropped.
pub(in crate::room) struct Arrival<'a> {
    arrivals: &'a Arrivals,
    user: UserNid,
    room: Arc<Room>,
}

impl Arrivals {
    /// Registers a join. Call this with the room's turn and before the profile is read, and drop the result after the
    /// commit.
    pub(in crate::room) fn register(&self, user: UserNid, room: &Arc<Room>) -> Arrival<'_> {
        lock(&self.0).entry(user).or_default().push(Arc::clone(room));
        Arrival { arrivals: self, user, room: Arc::clone(room) }
    }

    /// The rooms that the user is joining. Ask for these before the rooms that the user is in.
    pub(in crate::room) fn of(&self, user: UserNid) -> Vec<Arc<Room>> {
        lock(&self.0).get(&user).cloned().unwrap_or_default()
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        let mut arrivals = lock(&self.arrivals.0);
        let Some(rooms) = arrivals.get_mut(&self.user) else { return };
        if let Some(place) = rooms.iter().position(|room| Arc::ptr_eq(room, &self.room)) {
            rooms.swap_remove(place);
        }
        if rooms.is_empty() {
            arrivals.remove(&self.user);
        }
    }
}

impl Rooms {
    /// The user's current profile; empty if they have none.
    pub async fn profile_of(&self, user: UserNid) -> Result<MemberProfile, Error> {
        let mut reader = self.db.read().await?;
        let (displayname, avatar_url) = rows::find_shown(&mut reader.conn(), user).await?;
        let mut profile = MemberProfile::default();
        for (field, json) in [("displayname", displayname), ("avatar_url", avatar_url)] {
            if let Some(json) = json {
                profile.set(field, &json)?;
            }
        }
        Ok(profile)
    }

    /// The current profile of a user by their ID; empty for one that this server does not know.
    pub async fn find_profile_of(&self, user_id: &UserId) -> Result<MemberProfile, Error> {
        match self.db.find_user(user_id).await? {
            Some(user) => self.profile_of(user.nid).await,
            None => Ok(MemberProfile::default()),
        }
    }

    /// Shows the user's profile in all rooms that they are joined to, where it is not shown already. Skips rooms that
    /// refuse it.
    ///
    /// # Errors
    /// Database errors. Some rooms may already show the profile then.
    ///
    /// # Cancellation
    /// Queued events are committed; calling again does the rest.
    pub async fn show_profile(&self, user: &Arc<User>) -> Result<(), Error> {
        self.show_profile_in_first(user, usize::MAX).await
    }

    /// Does the first part of [`Self::show_profile`]: the rooms that the user is joining, and at most [`ROOMS_AT_ONCE`] more,
    /// those with the latest events first. A client expects to see these when its request is answered.
    ///
    /// # Errors
    /// As [`Self::show_profile`].
    pub async fn show_profile_soon(&self, user: &Arc<User>) -> Result<(), Error> {
        self.show_profile_in_first(user, ROOMS_AT_ONCE).await
    }

    async fn show_profile_in_first(&self, user: &Arc<User>, most: usize) -> Result<(), Error> {
        // In this order: a user who arrived in between is joined by now.
        let arriving = self.arrivals.of(user.nid);
        let mut joined = self.joined_rooms(user.nid).await?;
        self.sort_lately_used_first(&mut joined);
        joined.truncate(most);
        if !arriving.is_empty() {
            let _turn = self.profile_turns.take_always(user.nid).await;
            let profile = self.profile_of(user.nid).await?;
            let mut queued = Vec::new();
            for room in arriving {
                // A room that was not created after all is skipped.
                if let Some(writer) = self.enter_if_there(&room).await? {
                    queued.extend(self.queue_profile(writer, user, &profile).await?);
                }
            }
            wait_for(queued).await?;
        }
        for rooms in joined.chunks(ROOMS_AT_ONCE) {
            // The turn is taken again for each batch, so that nobody waits for more than one.
            let _turn = self.profile_turns.take_always(user.nid).await;
            let profile = self.profile_of(user.nid).await?;
            let mut queued = Vec::with_capacity(rooms.len());
            for nid in rooms {
                // A damaged room must not keep the profile from the others.
                let shown = self.queue_profile_in(*nid, user, &profile).await;
                queued.extend(self.contain(*nid, shown)?.flatten());
            }
            wait_for(queued).await?;
        }
        Ok(())
    }

    async fn queue_profile_in(
        &self,
        room: RoomNid,
        user: &Arc<User>,
        profile: &MemberProfile,
    ) -> Result<Option<Committed>, Error> {
        let room = self.by_nid(room).await?;
        self.queue_profile(self.enter(&room).await?, user, profile).await
    }

    /// Queues a member event with this profile, if the user is in the room and has another profile there.
    async fn queue_profile(
        &self,
        mut writer: RoomWriter<'_>,
        user: &Arc<User>,
        profile: &MemberProfile,
    ) -> Result<Option<Committed>, Error> {
        // Checked at the head: a user who has just left must not be joined again.
        if writer.membership(&user.user_id).await? != Some(Membership::Join) {
            return Ok(None);
        }
        let member = writer.state("m.room.member", user.user_id.as_str()).await?;
        if member.is_none_or(|member| MemberProfile::shown_in(&member) == *profile) {
            return Ok(None);
        }
        let draft = member_draft(&user.user_id, MembershipState::Join, profile, &[]);
        match writer.append(user, draft).await {
            Ok(_) => writer.commit(None).map(Some),
            Err(AppendError::Storage(error)) => Err(error),
            Err(error) => {
                tracing::debug!(room_id = %writer.room.room_id, error = %Report(&error), "the room refused a new profile");
                Ok(None)
            }
        }
    }

    fn sort_lately_used_first(&self, rooms: &mut [RoomNid]) {
        let registry = self.registry.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = |nid: &RoomNid| registry.by_nid.get(nid).map(|room| room.last_pos());
        rooms.sort_by_cached_key(|nid| (std::cmp::Reverse(last(nid)), *nid));
    }
}

/// Waits for all of these commits.
pub(in crate::room) async fn wait_for(queued: Vec<Committed>) -> Result<(), Error> {
    for committed in queued {
        committed.wait().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
