//! In the turn: whether the event was judged in the room as it is, and all that is stored of it.

use std::collections::BTreeMap;

use super::{
    Decision, HeadView, Ids, Incoming, Judged, Mode, Placing, ReceiveError, RedactionReader, RoomFacts, Settled,
    effect::{Effect, effect},
    overlay::Overlay,
    redaction,
    rules::stored,
    source::Source,
};
use crate::{
    graph::previous,
    ids::EventNid,
    model::{GraphReader, RoomReader},
    standing::Flags,
};

/// The number of times that states are resolved outside the turn. If they have moved by then once more, they are resolved in
/// it, so that a room in which much happens cannot keep an event out for ever.
const ROUNDS_OUTSIDE: u8 = 2;

/// Decides what a judged event does to the room. `head` is the room's current one: nothing may change it until the decision
/// is stored.
///
/// The third time that the room's states had moved, they are resolved here.
///
/// # Errors
/// When reading or resolving fails, or when the room would have no forward extremity.
pub async fn settle<R: RoomReader + RedactionReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    judged: Box<Judged>,
    ids: &I,
) -> Result<Settled, ReceiveError<R::Error>> {
    let may_resolve = judged.rounds >= ROUNDS_OUTSIDE;
    settle_any::<R, I, Incoming>(reader, room, head, judged, (ids, may_resolve)).await
}

/// [`settle`] for an event of any origin.
pub(super) async fn settle_any<R: RoomReader + RedactionReader, I: Ids<Error = R::Error>, S: Source>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    mut judged: Box<Judged<S>>,
    (ids, may_resolve): (&I, bool),
) -> Result<Settled<S>, ReceiveError<R::Error>> {
    match change(reader, head, &judged).await? {
        Change::None => {}
        Change::Stored { nid, flags } => return Ok(Settled::Known { nid, flags }),
        Change::Other => return Ok(Settled::Stale(judged.source)),
    }
    let Some(effect) = effect(reader, room, head, &mut judged, (ids, may_resolve)).await? else {
        return Ok(Settled::Moved(judged));
    };
    // Redactions of an outlier found it when they came.
    let redacted_by = if judged.was_outlier { None } else { redaction::waiting(reader, judged.source.pdu()).await? };
    let mut decision = judged.into_decision(effect);
    decision.redacted_by = redacted_by;
    if decision.flags.is_accepted() {
        let reader = Overlay::new(reader, decision.sides.clone());
        decision.redaction = redaction::effect(&reader, room, decision.event.pdu(), decision.before).await?;
    }
    Ok(Settled::Store(Box::new(decision)))
}

/// A change of the room since an event was judged.
enum Change {
    /// None that matters.
    None,
    /// The event was stored.
    Stored { nid: EventNid, flags: Flags },
    /// The event may be judged in another way now.
    Other,
}

async fn change<R: GraphReader, S: Source>(
    reader: &R,
    head: HeadView<'_>,
    judged: &Judged<S>,
) -> Result<Change, R::Error> {
    let is_outlier = |flags: Flags| flags.contains(Flags::OUTLIER);
    let pdu = judged.source.pdu();
    let now = stored(reader, &pdu.event_id).await?;
    if let Some(now) = now.as_deref().filter(|now| !is_outlier(now.flags) || is_outlier(judged.flags)) {
        return Ok(Change::Stored { nid: now.nid, flags: now.flags });
    }
    let is_same = judged.reject_epoch == head.reject_epoch && now.is_some() == judged.was_outlier;
    // The known previous events of an event do not change, the missing ones may have come.
    let is_same = is_same
        && (judged.previous.missing.is_empty()
            || previous(reader, &pdu.prev_events).await?.missing == judged.previous.missing);
    Ok(if is_same { Change::None } else { Change::Other })
}

impl<S: Source> Judged<S> {
    fn into_decision(self, effect: Effect) -> Decision {
        let mut flags = self.flags;
        if effect.soft_failure.is_some() {
            flags |= Flags::SOFT_FAILED;
        }
        if effect.is_tip {
            flags |= Flags::TIP;
        }
        let placing = match self.source.mode() {
            _ if !flags.is_accepted() => Placing::Nowhere,
            Mode::Pushed | Mode::Fetched => Placing::EndOfLine,
            Mode::History(place) => Placing::Gap(place),
            Mode::Outlier => Placing::Nowhere,
        };
        let mut missing: BTreeMap<_, _> = self.previous.missing.iter().map(|id| (id.clone(), false)).collect();
        missing.extend(effect.covered.missing.into_iter().map(|id| (id, true)));
        Decision {
            nid: self.nid,
            was_outlier: self.was_outlier,
            key: self.key,
            membership: self.membership,
            flags,
            refused: self.refused.or(effect.soft_failure),
            placing,
            before: self.before,
            prev: self.previous.known.iter().map(|prev| prev.nid).collect(),
            missing,
            auth: self.auth,
            auth_depth: self.auth_depth,
            covers: effect.covered.nids,
            extremity: effect.extremity,
            changes: effect.changes.iter().collect(),
            sides: self.sides,
            redaction: None,
            redacted_by: None,
            alarm: effect.alarm,
            event: self.source.into_stored(),
        }
    }
}
