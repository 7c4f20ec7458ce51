//! Membership: join, invite, leave, kick, ban, unban and knock ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-membership

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use sabha_federation::state_log::Membership;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    AppendError, RoomWriter,
    profile::{MemberProfile, ROOMS_AT_ONCE, member_draft, wait_for},
    send::{AUTHORISER, SendError, check_joined},
};
use crate::{
    account::LocalDevice,
    report::Report,
    room::Rooms,
    store::{self, Committed, RoomNid, vocabulary::User},
};

/// The number of members that are checked to find one who may let a user into a restricted room.
const MAX_AUTHORISERS: usize = 1000;

/// Member fields that clients may not add to a join: the server sets them, or they would be mistaken for something
/// else.
const SERVERS_WORD: [&str; 7] =
    ["membership", "displayname", "avatar_url", "is_direct", "third_party_invite", "third_party_signed", AUTHORISER];

/// The number of rooms in a restricted room's join rules that are checked.
const MAX_ALLOWED_ROOMS: usize = 50;

impl Rooms {
    /// Joins the caller to a room of this server, with their current profile. Joining again changes nothing.
    ///
    /// # Errors
    /// Fails if the room does not let the caller in.
    pub async fn join(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<OwnedRoomId, SendError> {
        self.join_with(caller, room_id, (reason, &Map::new())).await
    }

    /// Joins as [`Self::join`] does, with more content for the member event. Fields that only the server may set are
    /// left out.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_with(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        (reason, content): (Option<&str>, &Map<String, Value>),
    ) -> Result<OwnedRoomId, SendError> {
        let room = self.require(room_id).await?;
        let mut writer = self.enter(&room).await?;
        let current = writer.membership(caller.user_id()).await?;
        if current == Some(Membership::Join) {
            let barrier = writer.barrier()?;
            drop(writer);
            barrier.wait().await?;
            return Ok(room.room_id.clone());
        }
        let authoriser =
            if current == Some(Membership::Invite) { None } else { self.authoriser(&writer, caller).await? };
        let mut more: Vec<_> = content
            .iter()
            .filter(|(name, _)| !SERVERS_WORD.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), Some(value.clone())))
            .collect();
        more.push(("reason", reason.map(Value::from)));
        more.push((AUTHORISER, authoriser.map(|user_id| Value::from(user_id.as_str()))));
        // Registered before the profile is read, and until the commit: a change of the profile meanwhile comes to this
        // room afterwards.
        let arrival = self.arrivals.register(caller.user.nid, &writer.room);
        // In this order: a deactivation that comes after this check finds the arrival.
        if caller.revoked.is_cancelled() {
            return Err(SendError::SignedOut);
        }
        let profile = self.profile_of(caller.user.nid).await?;
        let draft = member_draft(caller.user_id(), MembershipState::Join, &profile, &more);
        writer.append(&caller.user, draft).await?;
        self.finish(writer, None).await?;
        drop(arrival);
        Ok(room.room_id.clone())
    }

    /// Knocks on a room.
    ///
    /// # Errors
    /// Fails if the room does not allow knocks.
    pub async fn knock(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        profile: &MemberProfile,
        reason: Option<&str>,
    ) -> Result<OwnedRoomId, SendError> {
        let room = self.require(room_id).await?;
        let mut writer = self.enter(&room).await?;
        // As in a join.
        let arrival = self.arrivals.register(caller.user.nid, &writer.room);
        if caller.revoked.is_cancelled() {
            return Err(SendError::SignedOut);
        }
        let draft =
            member_draft(caller.user_id(), MembershipState::Knock, profile, &[("reason", reason.map(Value::from))]);
        writer.append(&caller.user, draft).await?;
        self.finish(writer, None).await?;
        drop(arrival);
        Ok(room.room_id.clone())
    }

    /// Invites a user, whose profile is `profile`.
    ///
    /// # Errors
    /// Fails if the caller may not invite, or if the user is banned or already in the room.
    pub async fn invite(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        profile: &MemberProfile,
        reason: Option<&str>,
    ) -> Result<(), SendError> {
        let room = self.require(room_id).await?;
        let mut writer = self.enter(&room).await?;
        check_joined(&writer, caller).await?;
        writer.note_caller(caller);
        let draft = member_draft(user_id, MembershipState::Invite, profile, &[("reason", reason.map(Value::from))]);
        writer.append(&caller.user, draft).await?;
        Ok(self.finish(writer, None).await?)
    }

    /// Leaves a room, rejects an invitation or withdraws a knock.
    ///
    /// # Errors
    /// [`SendError::NotInRoom`] when there is nothing to leave.
    pub async fn leave(&self, caller: &LocalDevice, room_id: &RoomId, reason: Option<&str>) -> Result<(), SendError> {
        self.remove(caller, room_id, caller.user_id(), MembershipState::Leave, reason, may_leave).await
    }

    /// Leaves every room, and rejects every invitation, before the account is deactivated. Skips rooms that cannot be
    /// left or are damaged.
    ///
    /// # Errors
    /// Database errors only.
    pub async fn leave_all(&self, user: &Arc<User>) -> Result<(), store::Error> {
        // In this order: a user who arrived in between is joined by now.
        let arriving = self.arrivals.of(user.nid);
        let entries = self.memberships(user.nid).await?;
        let rooms: Vec<RoomNid> =
            entries.into_iter().filter(|entry| may_leave(Some(entry.membership))).map(|entry| entry.room).collect();
        let mut queued = Vec::new();
        for room in arriving {
            if let Some(writer) = self.enter_if_there(&room).await? {
                queued.extend(self.queue_leave(writer, user).await?);
            }
        }
        wait_for(queued).await?;
        for rooms in rooms.chunks(ROOMS_AT_ONCE) {
            let mut queued = Vec::with_capacity(rooms.len());
            for nid in rooms {
                let left = self.queue_leave_in(*nid, user).await;
                queued.extend(self.contain(*nid, left)?.flatten());
            }
            wait_for(queued).await?;
        }
        Ok(())
    }

    async fn queue_leave_in(&self, room: RoomNid, user: &Arc<User>) -> Result<Option<Committed>, store::Error> {
        let room = self.by_nid(room).await?;
        self.queue_leave(self.enter(&room).await?, user).await
    }

    /// Queues a leave event, if the user has something to leave at the head of the room.
    async fn queue_leave(
        &self,
        mut writer: RoomWriter<'_>,
        user: &Arc<User>,
    ) -> Result<Option<Committed>, store::Error> {
        if !may_leave(writer.membership(&user.user_id).await?) {
            return Ok(None);
        }
        let draft = member_draft(&user.user_id, MembershipState::Leave, &MemberProfile::default(), &[]);
        match writer.append(user, draft).await {
            Ok(_) => writer.commit(None).map(Some),
            Err(AppendError::Storage(error)) => Err(error),
            Err(error) => {
                tracing::warn!(room_id = %writer.room.room_id, error = %Report(&error), "a deactivated user stays in the room");
                Ok(None)
            }
        }
    }

    /// Kicks another user from the room.
    ///
    /// # Errors
    /// Fails if the caller may not kick, or if the user is not in the room.
    pub async fn kick(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), SendError> {
        self.remove(caller, room_id, user_id, MembershipState::Leave, reason, may_leave).await
    }

    /// Bans another user from the room.
    ///
    /// # Errors
    /// Fails if the caller may not ban.
    pub async fn ban(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), SendError> {
        self.remove(caller, room_id, user_id, MembershipState::Ban, reason, |_| true).await
    }

    /// Lifts the ban of a user.
    ///
    /// # Errors
    /// Fails if the caller may not unban, or if the user is not banned.
    pub async fn unban(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), SendError> {
        let result = self
            .remove(caller, room_id, user_id, MembershipState::Leave, reason, |current| {
                current == Some(Membership::Ban)
            })
            .await;
        result.map_err(|error| match error {
            SendError::NotInRoom { user_id } => SendError::NotBanned { user_id },
            error => error,
        })
    }

    async fn remove(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        membership: MembershipState,
        reason: Option<&str>,
        may_go: impl FnOnce(Option<Membership>) -> bool,
    ) -> Result<(), SendError> {
        let room = self.require(room_id).await?;
        let mut writer = self.enter(&room).await?;
        if user_id != caller.user_id() {
            check_joined(&writer, caller).await?;
        }
        let current = writer.state("m.room.member", user_id.as_str()).await?;
        if !may_go(writer.membership(user_id).await?) {
            return Err(SendError::NotInRoom { user_id: user_id.to_owned() });
        }
        // The name that the user had in the room stays visible in the event that removes them.
        let profile = if user_id == caller.user_id() {
            MemberProfile::default()
        } else {
            current.as_deref().map(MemberProfile::shown_in).unwrap_or_default()
        };
        let draft = member_draft(user_id, membership, &profile, &[("reason", reason.map(Value::from))]);
        writer.append(&caller.user, draft).await?;
        Ok(self.finish(writer, None).await?)
    }

    /// Finds a local member who may invite, for a caller who wants to join a restricted room without an invitation.
    /// `None` unless the caller is in one of the rooms whose members are let in ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
    pub(in crate::room) async fn authoriser(
        &self,
        writer: &RoomWriter<'_>,
        caller: &LocalDevice,
    ) -> Result<Option<OwnedUserId>, store::Error> {
        let Some(join_rules) = writer.state("m.room.join_rules", "").await? else { return Ok(None) };
        let Ok(rule) = serde_json::from_str::<JoinRule>(join_rules.content.get()) else { return Ok(None) };
        if !matches!(rule.join_rule.as_str(), "restricted" | "knock_restricted") {
            return Ok(None);
        }
        let mut allowed = false;
        for allow in rule.allow.iter().take(MAX_ALLOWED_ROOMS) {
            let Some(room_id) = allow.room_id.as_deref().filter(|_| allow.kind == "m.room_membership") else {
                continue;
            };
            if let Some(room) = self.find(room_id).await?
                && self.is_joined(caller.user.nid, &room).await?
            {
                allowed = true;
                break;
            }
        }
        if !allowed {
            return Ok(None);
        }
        let power_levels = writer.power_levels().await?;
        for user in self.local_joined_members(writer.room.nid).await?.into_iter().take(MAX_AUTHORISERS) {
            let user = self.db.user_by_nid(user).await?;
            // The database has the committed members; the head says whether they are still in the room.
            let is_there = writer.membership(&user.user_id).await? == Some(Membership::Join);
            if is_there && power_levels.user_can_invite(&user.user_id) {
                return Ok(Some(user.user_id.clone()));
            }
        }
        Ok(None)
    }
}

/// Returns whether there is something to leave.
fn may_leave(current: Option<Membership>) -> bool {
    matches!(current, Some(Membership::Join | Membership::Invite | Membership::Knock))
}

#[derive(Deserialize)]
struct JoinRule {
    join_rule: String,
    #[serde(default)]
    allow: Vec<Allow>,
}

#[derive(Deserialize)]
struct Allow {
    #[serde(rename = "type")]
    kind: String,
    room_id: Option<OwnedRoomId>,
}
