//! Events of local users, which are built on the room's forward extremities.
//!
//! They are decided about as an event of another server is that comes at once: the same rules, states and extremities. But
//! one that breaks a rule is not stored, its user is told instead.

use std::sync::Arc;

use ruma::{OwnedEventId, UserId, events::StateEventType};

use super::{
    Decision, HeadView, Ids, ReceiveError, RedactionReader, RoomFacts, Settled, Verdict,
    commit::settle_any,
    decide::judge_any,
    effect::state_after,
    rules::events,
    source::Ours,
    states::{View, merge},
};
use crate::{
    auth::{AuthRuleError, auth_types},
    build::EventDraft,
    model::RoomReader,
    pdu::Pdu,
    standing::StateAt,
};

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
    #[error("the event was not built on this room as it is now")]
    NotBuiltHere,
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
    let types: Vec<(StateEventType, String)> =
        auth_types(room.rules, &draft.event_type, sender, draft.state_key.as_deref(), &draft.content)
            .map_err(LocalError::NotAllowed)?;
    let (named, is_all) = head.extremities.to_name();
    let auth_events = if is_all {
        let current = View::At(StateAt::in_log(head.state_pos));
        events(reader, current, &types).await.map_err(ReceiveError::Read)?
    } else {
        let mut states = Vec::with_capacity(named.len());
        for extremity in &named {
            states.push(state_after(reader, head, extremity).await.map_err(ReceiveError::Read)?);
        }
        let merged = merge(reader, room, head, &states, ids).await?;
        events(reader, merged.view(head.state_pos), &types).await.map_err(ReceiveError::Read)?
    };
    let depth = named.iter().map(|extremity| extremity.depth).max().unwrap_or_default();
    Ok(Base {
        prev_events: named.iter().map(|extremity| extremity.event_id.clone()).collect(),
        auth_events: auth_events.into_iter().flatten().map(|event| event.event_id.clone()).collect(),
        depth: u64::try_from(depth).unwrap_or_default().saturating_add(1),
    })
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
    let judged = match judge_any(reader, room, head, Box::new(Ours(event)), ids).await? {
        Verdict::Judged(judged) => judged,
        Verdict::Known { .. } | Verdict::Dropped(_) | Verdict::Wait { .. } => return Err(LocalError::NotBuiltHere),
    };
    let Settled::Store(decision) = settle_any(reader, room, head, judged, (ids, true)).await? else {
        return Err(LocalError::NotBuiltHere);
    };
    match decision.refused {
        Some(rule) => Err(LocalError::NotAllowed(rule)),
        None => Ok(decision),
    }
}
