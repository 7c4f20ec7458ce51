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
//! Room versions know nothing of this, so it holds for events of this server's users only.

use ruma::UserId;
use sabha_federation::{Pdu, state_log::Membership};

use super::{AppendError, RoomWriter};
use crate::{
    account_data::ignored::Ignored,
    room::Rooms,
    store::{Error, accounts, members, vocabulary::User},
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

/// The user who sends an invitation or a knock.
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
        let waiting = self.rooms.count_memberships(user.nid, membership).await?;
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
