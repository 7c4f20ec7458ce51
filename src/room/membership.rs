//! Membership: join, invite, leave, kick, ban, unban and knock ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-membership

use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Rooms,
    profile::{MemberProfile, ROOMS_AT_ONCE, member_draft, wait_for},
    send::{AUTHORISER, SendError, check_joined},
    state_log::Membership,
    writer::{AppendError, RoomWriter},
};
use crate::{
    report::Report,
    account::LocalDevice,
    store::{self, Committed, RoomNid, vocabulary::User},
};

/// How many members are looked at for one who may let a user into a restricted room.
const MAX_AUTHORISERS: usize = 1000;

/// What a join says that is not for the one who joins to say, or that would be taken for something else.
const SERVERS_WORD: [&str; 7] =
    ["membership", "displayname", "avatar_url", "is_direct", "third_party_invite", "third_party_signed", AUTHORISER];

/// How many rooms a restricted room's rules are followed to.
const MAX_ALLOWED_ROOMS: usize = 50;

impl Rooms {
    /// Joins the caller to a room of this server, with the profile that they have then. Joining again changes nothing.
    ///
    /// # Errors
    /// When the room does not let the caller in.
    pub async fn join(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<OwnedRoomId, SendError> {
        self.join_with(caller, room_id, (reason, &Map::new())).await
    }

    /// The same, with more content for the member event. What the server itself says there is left out of it.
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
        let current = writer.membership(caller.user_id());
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
        // Before the profile is read, and until the commit: who changes it meanwhile comes here afterwards.
        let arrival = self.arrivals.register(caller.user.nid, &writer.room);
        let profile = self.profile_of(caller.user.nid).await?;
        let draft = member_draft(caller.user_id(), MembershipState::Join, &profile, &more);
        writer.append(&caller.user, draft).await?;
        self.finish(writer, None).await?;
        drop(arrival);
        Ok(room.room_id.clone())
    }

    /// Asks to be let in.
    ///
    /// # Errors
    /// When the room does not take such requests.
    pub async fn knock(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        profile: &MemberProfile,
        reason: Option<&str>,
    ) -> Result<OwnedRoomId, SendError> {
        let room = self.require(room_id).await?;
        let mut writer = self.enter(&room).await?;
        let draft =
            member_draft(caller.user_id(), MembershipState::Knock, profile, &[("reason", reason.map(Value::from))]);
        writer.append(&caller.user, draft).await?;
        self.finish(writer, None).await?;
        Ok(room.room_id.clone())
    }

    /// Invites a user. `profile` is theirs.
    ///
    /// # Errors
    /// When the caller may not invite, or the user is banned or already in the room.
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
        check_joined(&writer, caller)?;
        let draft = member_draft(user_id, MembershipState::Invite, profile, &[("reason", reason.map(Value::from))]);
        writer.append(&caller.user, draft).await?;
        Ok(self.finish(writer, None).await?)
    }

    /// Leaves a room, or turns an invitation or a request to join down.
    ///
    /// # Errors
    /// [`SendError::NotInRoom`] when there is nothing to leave.
    pub async fn leave(&self, caller: &LocalDevice, room_id: &RoomId, reason: Option<&str>) -> Result<(), SendError> {
        self.remove(caller, room_id, caller.user_id(), MembershipState::Leave, reason, may_leave).await
    }

    /// Leaves every room, and turns every invitation down, before the account goes. A room that cannot be left, or that is
    /// damaged, is left alone.
    ///
    /// # Errors
    /// Only the database's.
    pub async fn leave_all(&self, user: &Arc<User>) -> Result<(), store::Error> {
        // In this order: who has arrived in between is joined by now.
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

    /// Queues a leave, if there is something to leave at the head.
    async fn queue_leave(
        &self,
        mut writer: RoomWriter<'_>,
        user: &Arc<User>,
    ) -> Result<Option<Committed>, store::Error> {
        if !may_leave(writer.membership(&user.user_id)) {
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

    /// Takes another user out of the room.
    ///
    /// # Errors
    /// When the caller may not, or the user is not there.
    pub async fn kick(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), SendError> {
        self.remove(caller, room_id, user_id, MembershipState::Leave, reason, may_leave).await
    }

    /// Takes another user out of the room and keeps them out.
    ///
    /// # Errors
    /// When the caller may not.
    pub async fn ban(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<(), SendError> {
        self.remove(caller, room_id, user_id, MembershipState::Ban, reason, |_| true).await
    }

    /// Lets a banned user come back.
    ///
    /// # Errors
    /// When the caller may not, or the user is not banned.
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
            check_joined(&writer, caller)?;
        }
        let current = writer.state("m.room.member", user_id.as_str()).await?;
        if !may_go(writer.membership(user_id)) {
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

    /// For a restricted room that the caller was not invited to: a member of ours who may invite, if the caller is in one
    /// of the rooms whose members are let in ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
    pub(super) async fn authoriser(
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
            // The database names the candidates as committed; the head says whether they are still there.
            let is_there = writer.membership(&user.user_id) == Some(Membership::Join);
            if is_there && power_levels.user_can_invite(&user.user_id) {
                return Ok(Some(user.user_id.clone()));
            }
        }
        Ok(None)
    }
}

/// Whether there is something to leave.
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
