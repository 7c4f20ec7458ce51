//! The checks of an invitation that are about the invited user, not about the room. A knock is limited like an
//! invitation.
//!
//! A first sync brings all invitations and knocks of a user, of up to 20 KiB each: 20 MB with the default limit
//! (`limits.pending_invites_per_user`), and 100 MB with the highest, about as much as it may have of state. But strangers
//! who invite somebody to many rooms must not shut out others:
//!
//! - One inviter alone has only a part of the limit.
//! - Invitations from users whom the invited one ignores take no place, because no client shows them and lets the user
//!   answer them. Each ignored inviter keeps to their part all the same.
//! - Over the limit, inviters who have few invitations waiting may still invite the user: each adds only a small part of
//!   the limit. Strangers who want more of them need many accounts, whose number the rate limits bound.
//!
//! The users who are invited to a new room are checked before it is begun, many at once ([`Rooms::invitees`]). All others
//! are checked when their event is built ([`RoomWriter::append`]).
//!
//! Room versions know nothing of this, so it holds for events of this server's users only.

use std::{collections::HashMap, sync::Arc};

use ruma::{OwnedUserId, UserId};
use sabha_federation::{Pdu, state_log::Membership};

use super::{AppendError, RoomWriter, profile::MemberProfile};
use crate::{
    account::LocalDevice,
    account_data::ignored::Ignored,
    room::Rooms,
    store::{Error, UserNid, accounts, device_keys::USERS_PER_STATEMENT, members, profiles, vocabulary::User},
};

/// The part of the limit that one inviter may have waiting for a user. With the default, these are 250 invitations: more
/// than anybody answers, and four accounts are needed for all of them.
const INVITER_PART: usize = 4;

/// As [`INVITER_PART`], for an inviter that an application service acts for. A bridge makes a room for each chat of its
/// user, and its bot invites the user to all of them.
const APPSERVICE_PART: usize = 2;

/// The part of the limit that one inviter may have waiting for a user who is over the limit. With the default, these are
/// ten invitations: enough for a person who invites another one to the rooms of a space.
const SMALL_PART: usize = 100;

/// A user who may be invited to a new room, with the profile that their member event will show.
#[derive(Debug, Clone)]
pub struct Invitee {
    pub(super) user_id: OwnedUserId,
    pub(super) profile: MemberProfile,
}

/// The user who sends an invitation.
#[derive(Clone, Copy)]
struct Inviter<'a> {
    user_id: &'a UserId,
    is_appservice: bool,
}

impl RoomWriter<'_> {
    /// Checks the user whom an event invites or lets knock.
    ///
    /// Invitations that are queued do not count yet, so requests at the same time may exceed the limit by their number.
    /// An account that is deactivated at the same time may keep the invitation; nobody can answer it.
    ///
    /// # Errors
    /// [`AppendError::Deactivated`], [`AppendError::TooManyInvitations`], [`AppendError::TooManyKnocks`], and errors of
    /// the database.
    pub(super) async fn check_invitee(
        &self,
        sender: &User,
        event: &Pdu,
        membership: Membership,
    ) -> Result<(), AppendError> {
        let Some(Ok(user_id)) = event.state_key.as_deref().map(UserId::parse) else { return Ok(()) };
        // A user whom nobody has named yet has neither an account nor invitations.
        let Some(user) = self.rooms.db.find_user(&user_id).await?.filter(|user| user.is_local()) else { return Ok(()) };
        if membership == Membership::Invite {
            let mut reader = self.rooms.db.read().await?;
            if accounts::is_deactivated(&mut reader.conn(), user.nid).await? {
                return Err(AppendError::Deactivated { user_id });
            }
        }
        // Another invitation to this room, or one that answers a knock, takes the place of what waits.
        if matches!(self.membership(&user_id).await?, Some(Membership::Invite | Membership::Knock)) {
            return Ok(());
        }
        let counts = self.rooms.count_memberships(&[user.nid], membership).await?;
        let waiting = counts.get(&user.nid).copied().unwrap_or_default();
        if membership == Membership::Knock {
            // The user sends all knocks, so the limit has no parts.
            return if waiting < self.rooms.max_pending_invites { Ok(()) } else { Err(AppendError::TooManyKnocks) };
        }
        let inviter = Inviter { user_id: &sender.user_id, is_appservice: self.is_appservice };
        if self.rooms.may_invite(inviter, &user, waiting).await? {
            return Ok(());
        }
        Err(AppendError::TooManyInvitations { user_id })
    }
}

impl Rooms {
    /// Checks local users whom the caller invites to a new room, and reads their profiles.
    ///
    /// # Errors
    /// [`AppendError::Deactivated`], [`AppendError::TooManyInvitations`], and errors of the database.
    pub async fn invitees(
        &self,
        caller: &LocalDevice,
        user_ids: Vec<OwnedUserId>,
    ) -> Result<Vec<Invitee>, AppendError> {
        // The others, whom nobody has named yet, have neither an account nor invitations.
        let users = self.db.find_users(user_ids.iter()).await?;
        let mut shown = self.shown_accounts(&users).await?;
        let nids: Vec<UserNid> = users.iter().map(|user| user.nid).collect();
        let waiting = self.count_memberships(&nids, Membership::Invite).await?;
        let inviter = Inviter { user_id: caller.user_id(), is_appservice: caller.appservice.is_some() };
        for user in &users {
            if !self.may_invite(inviter, user, waiting.get(&user.nid).copied().unwrap_or_default()).await? {
                return Err(AppendError::TooManyInvitations { user_id: user.user_id.clone() });
            }
        }
        let with_profile = |user_id: OwnedUserId| {
            let profile = shown.remove(&user_id).unwrap_or_default();
            Invitee { user_id, profile }
        };
        Ok(user_ids.into_iter().map(with_profile).collect())
    }

    /// The profiles of users, none of whom may be deactivated. Users without an account are missing.
    async fn shown_accounts(&self, users: &[Arc<User>]) -> Result<HashMap<OwnedUserId, MemberProfile>, AppendError> {
        let mut shown = HashMap::with_capacity(users.len());
        let mut reader = self.db.read().await?;
        for chunk in users.chunks(USERS_PER_STATEMENT) {
            let nids: Vec<UserNid> = chunk.iter().map(|user| user.nid).collect();
            for row in profiles::find_shown_of(&mut reader.conn(), &nids).await? {
                let Some(user) = chunk.iter().find(|user| user.nid.0 == row.user_nid) else { continue };
                if row.deactivated_at.is_some() {
                    return Err(AppendError::Deactivated { user_id: user.user_id.clone() });
                }
                let profile: &mut MemberProfile = shown.entry(user.user_id.clone()).or_default();
                if let (Some(field), Some(json)) = (row.field, row.json) {
                    profile.set(&field, &json)?;
                }
            }
        }
        Ok(shown)
    }

    /// Returns whether one more invitation may wait for a user who has `waiting` of them.
    async fn may_invite(&self, inviter: Inviter<'_>, user: &User, waiting: usize) -> Result<bool, Error> {
        let limit = self.max_pending_invites;
        let part_of = |part: usize| (limit / part).max(1);
        let part = part_of(if inviter.is_appservice { APPSERVICE_PART } else { INVITER_PART });
        if waiting < part {
            return Ok(true);
        }
        // Memory does not have the senders.
        let mut reader = self.db.read().await?;
        let by_sender = members::count_by_sender(&mut reader.conn(), user.nid, Membership::Invite.code()).await?;
        let ignored = Ignored::find(&mut reader.conn(), user).await?;
        let (mut own, mut shown) = (0, 0);
        for (sender, count) in by_sender {
            let count = usize::try_from(count).unwrap_or_default();
            if sender == inviter.user_id.as_str() {
                own = count;
            }
            if !ignored.names(&sender) {
                shown += count;
            }
        }
        Ok(own < part && (shown < limit || own < part_of(SMALL_PART)))
    }
}
