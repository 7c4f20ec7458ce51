//! Sending: turns a local user's request into a signed event in the room.
//!
//! Promise: an event is stored with everything that follows from it (stream position, transaction ID, state), or not at
//! all; it is answered after the commit; a repeated transaction ID gives the first event's ID.

use std::sync::Arc;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use sabha_federation::{EventDraft, state_log::Membership};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};
use tracing::{Instrument as _, debug_span};

use super::{AppendError, RoomWriter, txn::TxnKey};
use crate::{
    account::LocalDevice,
    room::{Room, Rooms},
    store,
};

/// The field of a join that names the user who authorised it, in restricted rooms.
pub(in crate::room) const AUTHORISER: &str = "join_authorised_via_users_server";

/// Errors of sending a local user's event.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("{room_id} is not a room of this server")]
    UnknownRoom { room_id: OwnedRoomId },
    /// The sender is not in the room, and learns nothing of it.
    #[error("the sender is not in {room_id}")]
    NotJoined { room_id: OwnedRoomId },
    #[error("{user_id} is not in the room")]
    NotInRoom { user_id: OwnedUserId },
    #[error("{event_id} is not an event of the room")]
    UnknownEvent { event_id: OwnedEventId },
    #[error("{user_id} may not redact this event")]
    MayNotRedact { user_id: OwnedUserId },
    #[error("the alias {alias} does not point to this room")]
    BadAlias { alias: String },
    /// The content of an `m.room.canonical_alias` event has something other than aliases in its fields.
    #[error("the content names no aliases")]
    NoAliases(#[source] serde_json::Error),
    #[error("the sender has annotated the event with this key before")]
    DuplicateAnnotation,
    #[error("{user_id} is not banned")]
    NotBanned { user_id: OwnedUserId },
    /// The session ended after the request was authenticated, perhaps with the account.
    #[error("the sender was signed out meanwhile")]
    SignedOut,
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the event could not be stored")]
    Storage(#[from] store::Error),
}

impl Rooms {
    /// Sends a message event, once per `txn`.
    ///
    /// # Errors
    /// After [`SendError::Storage`] the event may be stored; a retry with the same `txn` settles it.
    pub async fn send(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        draft: EventDraft,
        txn: Option<TxnKey>,
    ) -> Result<OwnedEventId, SendError> {
        self.send_dated(caller, room_id, draft, txn, None).await
    }

    /// Sends as [`Self::send`] does, with an `origin_server_ts` of the sender's choice. The date does not change the
    /// event's place in the room.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_dated(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        mut draft: EventDraft,
        txn: Option<TxnKey>,
        date: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<OwnedEventId, SendError> {
        let room = self.require(room_id).instrument(debug_span!("room.find")).await?;
        let mut writer = self.enter(&room).instrument(debug_span!("room.enter")).await?;
        if let Some(txn) = &txn
            && let Some(sent) = self.txn_ids.find(txn).instrument(debug_span!("room.txn_id")).await?
        {
            // The event may still be queued: wait until everything that was queued before is committed.
            let barrier = writer.barrier()?;
            drop(writer);
            barrier.wait().await?;
            // The write may have failed, and the room may have been loaded again since.
            return match self.txn_ids.find(txn).await? {
                Some(stored) if stored == sent => Ok(sent),
                _ => Err(store::Error::Superseded.into()),
            };
        }
        check_joined(&writer, caller).await?;
        self.check_redaction(&writer, caller.user_id(), &mut draft).await?;
        writer.date(date);
        let event_id = writer.append(&caller.user, draft).instrument(debug_span!("room.append")).await?;
        if writer.repeats_annotation().await? {
            return Err(SendError::DuplicateAnnotation);
        }
        self.finish(writer, txn).await?;
        Ok(event_id)
    }

    /// Sends a state event. If the caller has already set this state, changes nothing and returns the ID of that event.
    ///
    /// # Errors
    /// As [`Self::send`], and [`SendError::BadAlias`].
    pub async fn send_state(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        draft: EventDraft,
    ) -> Result<OwnedEventId, SendError> {
        self.send_state_dated(caller, room_id, draft, None).await
    }

    /// Sends as [`Self::send_state`] does, with an `origin_server_ts` of the sender's choice.
    ///
    /// # Errors
    /// As [`Self::send_state`].
    pub async fn send_state_dated(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        mut draft: EventDraft,
        date: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Result<OwnedEventId, SendError> {
        let room = self.require(room_id).await?;
        if draft.event_type == "m.room.canonical_alias" {
            self.check_canonical_alias(&room, &draft.content).await?;
        }
        let mut writer = self.enter(&room).await?;
        let is_own_member =
            draft.event_type == "m.room.member" && draft.state_key.as_deref() == Some(caller.user_id().as_str());
        // As in a join, which this may be.
        let arrival = is_own_member.then(|| self.arrivals.register(caller.user.nid, &writer.room));
        if is_own_member && caller.revoked.is_cancelled() {
            return Err(SendError::SignedOut);
        }
        if !is_own_member {
            check_joined(&writer, caller).await?;
        }
        if draft.event_type == "m.room.member" {
            self.set_authoriser(&writer, caller, &mut draft).await?;
        }
        let state_key = draft.state_key.clone().unwrap_or_default();
        if let Some(current) = writer.state(&draft.event_type, &state_key).await?
            && current.sender == *caller.user_id()
            && same_json(&current.content, &draft.content)
        {
            let event_id = current.event_id.clone();
            let barrier = writer.barrier()?;
            drop(writer);
            barrier.wait().await?;
            return Ok(event_id);
        }
        self.check_redaction(&writer, caller.user_id(), &mut draft).await?;
        writer.date(date);
        writer.note_caller(caller);
        let event_id = writer.append(&caller.user, draft).await?;
        self.finish(writer, None).await?;
        drop(arrival);
        Ok(event_id)
    }

    /// Commits the appended events and waits for the commit; the next writer can enter meanwhile.
    pub(in crate::room) async fn finish(
        &self,
        writer: RoomWriter<'_>,
        txn: Option<TxnKey>,
    ) -> Result<(), store::Error> {
        let committed = writer.commit(txn)?;
        committed.wait().instrument(debug_span!("room.committed")).await.map(|_| ())
    }

    /// The room, or an error that says nothing about rooms that the caller is not in.
    pub(in crate::room) async fn require(&self, room_id: &RoomId) -> Result<Arc<Room>, SendError> {
        self.find(room_id).await?.ok_or_else(|| SendError::UnknownRoom { room_id: room_id.to_owned() })
    }

    /// Sets the user who authorises a join to a restricted room, and drops the client's value: this server signs for
    /// that user.
    async fn set_authoriser(
        &self,
        writer: &RoomWriter<'_>,
        caller: &LocalDevice,
        draft: &mut EventDraft,
    ) -> Result<(), SendError> {
        // Content that is not an object is refused when the event is built.
        let Ok(mut content) = serde_json::from_str::<Map<String, Value>>(draft.content.get()) else { return Ok(()) };
        let dropped = content.remove(AUTHORISER).is_some();
        let joins = content.get("membership").is_some_and(|membership| membership == "join")
            && draft.state_key.as_deref() == Some(caller.user_id().as_str());
        let is_in = matches!(writer.membership(caller.user_id()).await?, Some(Membership::Join | Membership::Invite));
        let authoriser = if joins && !is_in { self.authoriser(writer, caller).await? } else { None };
        if let Some(user_id) = &authoriser {
            content.insert(AUTHORISER.to_owned(), user_id.as_str().into());
        }
        if dropped || authoriser.is_some() {
            draft.content = to_raw_value(&content).map_err(|error| store::Error::damaged("member event", error))?;
        }
        Ok(())
    }

    /// Checks that the sender may redact the event. Since room version 3 the auth rules let redactions pass, and each
    /// server decides whether they apply.
    async fn check_redaction(
        &self,
        writer: &RoomWriter<'_>,
        sender: &UserId,
        draft: &mut EventDraft,
    ) -> Result<(), SendError> {
        #[derive(serde::Deserialize)]
        struct Content {
            redacts: Option<OwnedEventId>,
        }
        if draft.event_type != "m.room.redaction" {
            return Ok(());
        }
        if draft.redacts.is_none() {
            // A client that sends the event itself names the redacted event there, in rooms of every version. It
            // counts, so it is checked.
            draft.redacts = serde_json::from_str::<Content>(draft.content.get()).ok().and_then(|named| named.redacts);
        }
        let Some(event_id) = draft.redacts.as_deref() else { return Ok(()) };
        let unknown = || SendError::UnknownEvent { event_id: event_id.to_owned() };
        let event = writer.find_event(event_id).await?.ok_or_else(unknown)?;
        if event.sender() == sender || writer.power_levels().await?.user_can_redact_event_of_other(sender) {
            return Ok(());
        }
        Err(SendError::MayNotRedact { user_id: sender.to_owned() })
    }

    /// Returns whether the user is joined to the room now.
    pub async fn is_joined(&self, user: store::UserNid, room: &Room) -> Result<bool, store::Error> {
        Ok(self.membership(user, room.nid).await? == Some(Membership::Join))
    }
}

/// Refuses everyone outside the room with the same error. Otherwise they would learn who is in the room and which
/// events exist.
pub(in crate::room) async fn check_joined(writer: &RoomWriter<'_>, caller: &LocalDevice) -> Result<(), SendError> {
    if writer.membership(caller.user_id()).await? == Some(Membership::Join) {
        return Ok(());
    }
    Err(SendError::NotJoined { room_id: writer.room.room_id.clone() })
}

/// Returns whether two texts are the same JSON value.
fn same_json(a: &RawValue, b: &RawValue) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok();
    a.get() == b.get() || value(a).is_some_and(|a| value(b).is_some_and(|b| a == b))
}
