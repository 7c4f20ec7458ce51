//! Events of local users, which are built on the room's forward extremities.

use std::sync::Arc;

use ruma::{OwnedEventId, UserId};

use super::{Decision, HeadView, Ids, ReceiveError, RedactionReader, RoomFacts};
use crate::{auth::AuthRuleError, build::EventDraft, model::RoomReader, pdu::Pdu};

/// The events that a local event names, and its depth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Base {
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: u64,
}

/// Why a local event is not sent.
#[derive(Debug, thiserror::Error)]
pub enum LocalError<E: std::error::Error + 'static> {
    #[error("the room does not allow the event")]
    NotAllowed(#[source] AuthRuleError),
    #[error(transparent)]
    Receive(#[from] ReceiveError<E>),
}

/// Chooses the events that a local event names. In the turn.
///
/// # Errors
/// When the content of an `m.room.member` event is so malformed that the rules would refuse it, or when reading or
/// resolving fails.
pub async fn base<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    (sender, draft): (&UserId, &EventDraft),
    ids: &I,
) -> Result<Base, LocalError<R::Error>> {
    let _ = (reader, room, head, sender, draft, ids);
    todo!()
}

/// Decides about an event that was built on its [`base`] and signed. In the same turn.
///
/// # Errors
/// [`LocalError::NotAllowed`] if the event breaks a rule: it is not stored. Also when reading or resolving fails.
pub async fn decide<R: RoomReader + RedactionReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    event: Arc<Pdu>,
    ids: &I,
) -> Result<Box<Decision>, LocalError<R::Error>> {
    let _ = (reader, room, head, event, ids);
    todo!()
}
