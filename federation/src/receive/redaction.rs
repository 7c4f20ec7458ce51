//! The events that an event redacts, and those that redact it.

use ruma::events::StateEventType;

use super::{Redaction, RedactionReader, RoomFacts, rules::events, states::View};
use crate::{
    graph::{by_power, may_redact},
    ids::EventNid,
    model::RoomReader,
    pdu::Pdu,
    standing::StateAt,
};

/// The effect of an accepted event as a redaction. `None`: it is none, or names no event.
pub(super) async fn effect<R: RoomReader>(
    reader: &R,
    room: &RoomFacts<'_>,
    pdu: &Pdu,
    before: StateAt,
) -> Result<Option<Redaction>, R::Error> {
    let Some(target) = &pdu.redacts else { return Ok(None) };
    let keys = [StateEventType::RoomPowerLevels, StateEventType::RoomCreate].map(|name| (name, String::new()));
    let mut found = events(reader, View::At(before), &keys).await?;
    let (create, levels) = (found.pop().flatten(), found.pop().flatten());
    let by_power = create.is_some_and(|create| by_power(room.rules, pdu, levels.as_deref(), &create));

    let Some(nid) = reader.find(std::slice::from_ref(target)).await?.get(target).copied() else {
        return Ok(Some(Redaction::Pending { target: target.clone(), by_power }));
    };
    let sender = reader.pdus(&[nid]).await?.pop().map(|event| event.sender.clone());
    let may = sender.is_some_and(|sender| may_redact(by_power, &pdu.sender, &sender));
    Ok(Some(if may { Redaction::Applies(nid) } else { Redaction::Refused(nid) }))
}

/// The first of the redactions that waited for this event and may redact it.
pub(super) async fn waiting<R: RoomReader + RedactionReader>(
    reader: &R,
    pdu: &Pdu,
) -> Result<Option<EventNid>, R::Error> {
    let waiting = reader.waiting(&pdu.event_id).await?;
    let nids: Vec<_> = waiting.iter().map(|redaction| redaction.nid).collect();
    let redactions = reader.pdus(&nids).await?;
    let may = waiting.iter().zip(redactions).find(|(of, event)| may_redact(of.by_power, &event.sender, &pdu.sender));
    Ok(may.map(|(redaction, _)| redaction.nid))
}
