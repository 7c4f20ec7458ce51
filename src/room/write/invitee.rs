//! The checks of an invitation that are about the invited user, not about the room. A knock is limited like an invitation.
//!
//! A first sync brings all invitations and knocks of a user, of up to 20 KiB each: 20 MB with the default limit
//! (`limits.pending_invites_per_user`), and 100 MB with the highest, about as much as it may have of state. But a
//! stranger who invites somebody to many rooms must not shut out others. Over the limit, inviters who have few invitations
//! waiting may still invite the user: each adds only a small part of the limit. Strangers who want more of them need many
//! accounts, whose number the rate limits bound.
//!
//! Room versions know nothing of this, so it holds for events of this server's users only.

use ruma::UserId;
use sabha_federation::{Pdu, state_log::Membership};

use super::{AppendError, RoomWriter};
use crate::store::{Error, UserNid, accounts, members, vocabulary::User};

/// The part of the limit that one inviter may have waiting for a user who is over the limit. With the default, these are
/// ten invitations: enough for a person who invites another one to the rooms of a space.
const SMALL_PART: usize = 100;

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
        let waits = matches!(self.membership(&user_id).await?, Some(Membership::Invite | Membership::Knock));
        if waits || self.may_wait(sender.nid, user.nid, membership).await? {
            return Ok(());
        }
        Err(match membership {
            Membership::Knock => AppendError::TooManyKnocks,
            _ => AppendError::TooManyInvitations { user_id },
        })
    }

    /// Returns whether one more invitation or knock of the user, sent by `sender`, may wait for an answer.
    async fn may_wait(&self, sender: UserNid, user: UserNid, membership: Membership) -> Result<bool, Error> {
        let (rooms, limit) = (self.rooms, self.rooms.max_pending_invites);
        if rooms.count_memberships(user, membership).await? < limit {
            return Ok(true);
        }
        let mut reader = rooms.db.read().await?;
        let sent = members::count_set_by(&mut reader.conn(), user, membership.code(), sender).await?;
        Ok(sent < i64::try_from(limit / SMALL_PART).unwrap_or(i64::MAX).max(1))
    }
}
