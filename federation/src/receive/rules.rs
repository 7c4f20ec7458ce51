//! The auth rules against the auth events of an event, and against any state of the room.

use std::sync::Arc;

use ruma::{OwnedEventId, events::StateEventType, room_version_rules::RoomVersionRules};

use super::states::View;
use crate::{
    auth::{self, AuthRuleError, auth_types, check_against, check_auth_events, type_name},
    graph::{auth_depth, auth_event_ids},
    ids::EventNid,
    model::{GraphReader, RoomReader},
    pdu::Pdu,
};

/// The stored auth events of an event.
pub(super) struct AuthEvents {
    pub nids: Vec<EventNid>,
    /// The auth depth of the event itself.
    pub depth: i64,
    pdus: Vec<Arc<Pdu>>,
}

/// Reads the auth events. The inner error has the IDs of those that are not stored in this room.
pub(super) async fn auth_events<R: RoomReader>(
    reader: &R,
    rules: &RoomVersionRules,
    pdu: &Pdu,
) -> Result<Result<AuthEvents, Vec<OwnedEventId>>, R::Error> {
    let ids = auth_event_ids(rules, pdu);
    let found = reader.find(&ids).await?;
    let mut nids = Vec::with_capacity(ids.len());
    let mut missing = Vec::new();
    for id in ids {
        match found.get(&id) {
            Some(nid) if !nids.contains(nid) => nids.push(*nid),
            // An event that is named twice is refused by the rules.
            Some(_) => {}
            None => missing.push(id),
        }
    }
    if !missing.is_empty() {
        return Ok(Err(missing));
    }
    let nodes = reader.auth_nodes(&nids).await?;
    let depth = auth_depth(nodes.iter().map(|node| &**node));
    Ok(Ok(AuthEvents { depth, pdus: reader.pdus(&nids).await?, nids }))
}

impl AuthEvents {
    /// The rule that the event breaks by its auth events: by the events themselves, or by the state that they make.
    pub fn refusal(&self, rules: &RoomVersionRules, pdu: &Pdu) -> Option<AuthRuleError> {
        let by_id = |id: &ruma::EventId| self.pdus.iter().find(|auth| auth.event_id == id).cloned();
        let state = |event_type: &StateEventType, state_key: &str| {
            self.pdus.iter().find(|auth| auth.is_state(&type_name(event_type), state_key)).cloned()
        };
        check_auth_events(rules, pdu, by_id).and_then(|()| check_against(rules, pdu, state)).err()
    }
}

/// The rule that the event breaks in a state. `None`: the state allows it.
pub(super) async fn refusal<R: RoomReader>(
    reader: &R,
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: View<'_>,
) -> Result<Option<AuthRuleError>, R::Error> {
    let types = auth_types(rules, &pdu.event_type, &pdu.sender, pdu.state_key.as_deref(), &pdu.content);
    let mut types = match types {
        Ok(types) => types,
        Err(refused) => return Ok(Some(refused)),
    };
    // From room version 12 on the create event is implied, but the rules still look at it.
    let create = (StateEventType::RoomCreate, String::new());
    if !types.contains(&create) {
        types.push(create);
    }
    let events = events(reader, state, &types).await?;
    let found = |event_type: &StateEventType, state_key: &str| {
        let index = types.iter().position(|(of_type, of_key)| of_type == event_type && of_key == state_key)?;
        events[index].clone()
    };
    Ok(auth::check_against(rules, pdu, found).err())
}

/// The events that hold these keys in a state, in the order of the keys.
pub(super) async fn events<R: RoomReader>(
    reader: &R,
    state: View<'_>,
    keys: &[(StateEventType, String)],
) -> Result<Vec<Option<Arc<Pdu>>>, R::Error> {
    let mut nids = Vec::with_capacity(keys.len());
    for (event_type, state_key) in keys {
        nids.push(match reader.key(&type_name(event_type), state_key).await? {
            Some(key) => state.value(reader, key).await?.map(|held| held.event_nid),
            None => None,
        });
    }
    let mut pdus = reader.pdus(&nids.iter().copied().flatten().collect::<Vec<_>>()).await?.into_iter();
    Ok(nids.into_iter().map(|nid| nid.and_then(|_| pdus.next())).collect())
}

/// The stored event with this ID: its number and its flags.
pub(super) async fn stored<R: GraphReader>(
    reader: &R,
    event_id: &OwnedEventId,
) -> Result<Option<Arc<crate::model::GraphNode>>, R::Error> {
    match reader.find(std::slice::from_ref(event_id)).await?.get(event_id) {
        Some(nid) => Ok(reader.nodes(&[*nid]).await?.pop()),
        None => Ok(None),
    }
}
