//! Outside the turn: the auth events, the previous events, the state before an event, and the rules against both.

use std::{collections::BTreeSet, sync::Arc};

use ruma::OwnedEventId;
use serde::Deserialize;

use super::{
    DropReason, HeadView, Ids, Incoming, Missing, Mode, ReceiveError, RoomFacts, Verdict,
    effect::effect,
    overlay::Overlay,
    rules::{self, AuthEvents, auth_events, stored},
    source::Source,
    states::{Merged, View, merge},
};
use crate::{
    auth::AuthRuleError,
    graph::{Extremities, Previous, previous},
    ids::{EventNid, KeyNid},
    model::{GraphNode, RoomReader},
    pdu::Pdu,
    sides::{Side, after, store_as},
    standing::{Flags, StateAt},
    state_log::Membership,
};

/// An event that was judged, with everything about it that does not depend on the room's current state.
#[derive(Debug)]
pub struct Judged<S = Incoming> {
    pub(super) source: Box<S>,
    pub(super) nid: EventNid,
    pub(super) was_outlier: bool,
    pub(super) key: Option<KeyNid>,
    pub(super) membership: Option<Membership>,
    pub(super) flags: Flags,
    pub(super) refused: Option<AuthRuleError>,
    /// Empty for an outlier.
    pub(super) previous: Previous,
    pub(super) before: StateAt,
    pub(super) auth: Vec<EventNid>,
    pub(super) auth_depth: i64,
    /// The sides that were made for the event, and are not stored yet.
    pub(super) sides: Vec<Arc<Side>>,
    /// The state after the event, once it was asked for.
    pub(super) after: Option<StateAt>,
    /// The count of rejections by which the event was judged.
    pub(super) reject_epoch: i64,
    /// The number of times that the states of the room were resolved outside the turn.
    pub(super) rounds: u8,
}

/// Decides whether an event is rejected, and finds the state before it.
///
/// `head` is the room as it is now; it may have gone on when the event is settled.
///
/// # Errors
/// When reading or resolving fails.
pub async fn judge<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    incoming: Incoming,
    ids: &I,
) -> Result<Verdict, ReceiveError<R::Error>> {
    let mut verdict = judge_any(reader, room, head, Box::new(incoming), ids).await?;
    if let Verdict::Judged(judged) = &mut verdict {
        foresee(reader, room, head, judged, ids).await?;
    }
    Ok(verdict)
}

/// Resolves the states that the room will have with a judged event, so that [`settle`](super::settle) need not.
///
/// # Errors
/// When reading or resolving fails. The event stays as it was judged.
pub async fn foresee<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    judged: &mut Judged,
    ids: &I,
) -> Result<(), ReceiveError<R::Error>> {
    judged.rounds = judged.rounds.saturating_add(1);
    effect(reader, room, head, judged, (ids, true)).await.map(drop)
}

/// [`judge`] for an event of any origin, without a look at what it does to the room.
pub(super) async fn judge_any<R: RoomReader, I: Ids<Error = R::Error>, S: Source>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    source: Box<S>,
    ids: &I,
) -> Result<Verdict<S>, ReceiveError<R::Error>> {
    let (pdu, mode) = (source.pdu(), source.mode());
    if *pdu.room_id != *room.room_id {
        return Ok(Verdict::Dropped(DropReason::OtherRoom));
    }
    let was = stored(reader, &pdu.event_id).await?;
    let known = |was: &GraphNode| Verdict::Known { nid: was.nid, flags: was.flags };
    if let Some(was) = was.as_deref().filter(|was| mode == Mode::Outlier || !was.flags.contains(Flags::OUTLIER)) {
        return Ok(known(was));
    }
    let auth = match auth_events(reader, room.rules, pdu).await? {
        Ok(auth) => auth,
        Err(missing) => return Ok(Verdict::Wait { missing: Missing::AuthEvents(missing), event: source }),
    };
    let mut refused = refusal(room, &*source, was.as_ref().map(|was| was.nid), &auth);
    let previous = match mode {
        Mode::Outlier => None,
        Mode::Pushed | Mode::Fetched | Mode::History(_) => Some(previous(reader, &pdu.prev_events).await?),
    };
    let is_told = |prev: &OwnedEventId| source.told(prev).is_some();
    let previous = match previous {
        Some(previous) if previous.missing.iter().all(is_told) => Some(previous),
        Some(previous) if refused.is_none() => {
            let missing = in_order(&pdu.prev_events, |prev| previous.missing.contains(prev));
            return Ok(Verdict::Wait { missing: Missing::Prevs(missing), event: source });
        }
        // Other servers are not asked for the previous events of an event that is rejected in any case.
        _ => None,
    };
    let mut flags = source.flags();
    let (mut before, mut sides) = (StateAt::EMPTY, Vec::new());
    if let Some(previous) = &previous {
        let told: Vec<_> = previous.missing.iter().filter_map(|prev| source.told(prev)).collect();
        if !told.is_empty() {
            flags |= Flags::CLAIMED;
        }
        (before, sides) = state_before(reader, room, head, (previous, told), ids).await?;
        if refused.is_none() {
            let reader = Overlay::new(reader, sides.clone());
            refused = rules::refusal(&reader, room.rules, pdu, View::At(before)).await?;
        }
    } else if let Some(was) = &was {
        return Ok(known(was));
    } else {
        flags |= Flags::OUTLIER;
    }
    if refused.is_some() {
        flags |= Flags::REJECTED;
    }
    let key = match &pdu.state_key {
        Some(state_key) => Some(ids.key(&pdu.event_type, state_key).await?),
        None => None,
    };
    Ok(Verdict::Judged(Box::new(Judged {
        nid: was.as_ref().map_or_else(|| ids.event(), |was| Ok(was.nid))?,
        was_outlier: was.is_some(),
        key,
        membership: membership_of(pdu),
        flags,
        refused,
        previous: previous.unwrap_or_default(),
        before,
        auth: auth.nids,
        auth_depth: auth.depth,
        sides,
        after: None,
        reject_epoch: head.reject_epoch,
        rounds: 0,
        source,
    })))
}

/// The rule that an event breaks by itself or by its auth events. `stored` is its number, if it is stored.
fn refusal<S: Source>(
    room: &RoomFacts<'_>,
    source: &S,
    stored: Option<EventNid>,
    auth: &AuthEvents,
) -> Option<AuthRuleError> {
    let pdu = source.pdu();
    if source.ends_rejected() {
        return Some("a field has more than 255 bytes".to_owned().into());
    }
    // The rules allow any create event without previous events. A second one would be a second room with the ID of this
    // one, and one with another state key a room whose state has none.
    let creates_this_room = room.create.is_none_or(|create| Some(create) == stored);
    if pdu.event_type == "m.room.create" && !(creates_this_room && pdu.is_state("m.room.create", "")) {
        return Some("the room has another create event".to_owned().into());
    }
    auth.refusal(room.rules, pdu)
}

/// The state after the known previous events and the states that were told, and the sides that were made for it.
async fn state_before<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    (previous, mut states): (&Previous, Vec<StateAt>),
    ids: &I,
) -> Result<(StateAt, Vec<Arc<Side>>), ReceiveError<R::Error>> {
    if names_exactly(previous, head.extremities) {
        return Ok((StateAt::in_log(head.state_pos), Vec::new()));
    }
    let mut reader = Overlay::new(reader, Vec::new());
    for prev in &previous.known {
        let state = after(&reader, room.secret, prev, || ids.side()).await?;
        states.push(reader.keep(state));
    }
    let before = match merge(&reader, room, head, &states, ids).await? {
        Merged::One(at) => at,
        Merged::Resolved(delta) => {
            states.push(StateAt::in_log(head.state_pos));
            let state = store_as(&reader, room.secret, (&delta, head.state_pos), &states, || ids.side()).await?;
            reader.keep(state)
        }
    };
    Ok((before, reader.into_sides()))
}

/// Returns whether an event follows on exactly the forward extremities, so that the state before it is the current one.
pub(super) fn names_exactly(previous: &Previous, extremities: &Extremities) -> bool {
    let named: BTreeSet<EventNid> = previous.known.iter().map(|prev| prev.nid).collect();
    previous.missing.is_empty()
        && named.len() == extremities.len()
        && extremities.iter().all(|extremity| named.contains(&extremity.nid))
}

/// The IDs that are wanted, each once, in the order in which the event names them.
fn in_order(ids: &[OwnedEventId], is_wanted: impl Fn(&OwnedEventId) -> bool) -> Vec<OwnedEventId> {
    let mut found: Vec<OwnedEventId> = Vec::new();
    for id in ids.iter().filter(|id| is_wanted(id)) {
        if !found.contains(id) {
            found.push(id.clone());
        }
    }
    found
}

/// The membership that an `m.room.member` event says, if the specification knows it.
fn membership_of(pdu: &Pdu) -> Option<Membership> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        membership: std::borrow::Cow<'a, str>,
    }
    if pdu.event_type != "m.room.member" || pdu.state_key.is_none() {
        return None;
    }
    let content: Content<'_> = serde_json::from_str(pdu.content.get()).ok()?;
    Membership::named(&content.membership)
}
