//! The events that ruma asks for while it resolves, and the keys that it looks at.
//!
//! With *F* for the events to resolve, ruma looks at:
//! - F, and the auth events of its events;
//! - the state at the keys of F's events, and at the keys that authorize them;
//! - the power levels that an event names, those that they name, and so on to the first ones (the *mainline*). On the way
//!   it looks at the auth events of each, to see which of them are the power levels. This starts at each event of F, and at
//!   the power levels that the states agree on;
//! - the create event, which events of room version 12 and later do not name.
//!
//! The run needs only types and edges of the mainline, so its events are kept without their content: a room that changed its
//! power levels often has a long one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::value::RawValue;

use super::{Conflict, Prepared, ResolveError, auth_graph::AuthGraph, gather::States};
use crate::{
    auth::{auth_types, type_name},
    held::Held,
    ids::{EventNid, KeyNid},
    model::RoomReader,
    pdu::Pdu,
};

/// The JSON that a resolution may keep in memory, in bytes: about 100,000 events to resolve, with their auth events. In a
/// room that needs more, somebody makes conflicts on purpose.
pub const MOST_BYTES: u64 = 128 * 1024 * 1024;

/// The number of events that are read at once, so that a batch of the largest ones takes 8 MiB.
const EVENTS_AT_ONCE: usize = 128;

/// Reads everything for the resolution of `full`, whose nodes were read.
pub(super) async fn load<R: RoomReader>(
    conflict: &Conflict<'_>,
    mut states: States<'_, R>,
    mut graph: AuthGraph<'_, R>,
    full: BTreeSet<EventNid>,
) -> Result<Prepared, ResolveError<R::Error>> {
    let mut inputs = Inputs { room: conflict, reader: graph.reader, events: BTreeMap::new(), bytes: 0 };
    let mut keys = BTreeMap::new();
    for nid in &full {
        keys.insert(*nid, graph.node(*nid)?.key.ok_or(ResolveError::NotState(*nid))?);
    }
    for (key, values) in &states.conflicted {
        if let Some(value) = values.iter().find(|value| keys.get(&value.held.event_nid) != Some(key)) {
            return Err(ResolveError::Misplaced(value.held.event_nid));
        }
    }

    graph.load_auth_of(full.iter().copied()).await?;
    let mut whole = full.clone();
    for nid in &full {
        whole.extend(graph.node(*nid)?.auth.iter());
    }
    whole.insert(conflict.create);
    inputs.read(&whole, Form::Whole).await?;

    let mut unconflicted: BTreeMap<KeyNid, Held> = BTreeMap::new();
    for key in inputs.keys_to_look_at(&keys).await? {
        unconflicted.extend(states.unconflicted(key).await?.map(|held| (key, held)));
    }
    inputs.read(&unconflicted.values().map(|held| held.event_nid).collect(), Form::Whole).await?;

    let levels_key = graph.reader.key("m.room.power_levels", "").await?;
    let levels = levels_key.and_then(|key| unconflicted.get(&key)).map(|held| held.event_nid);
    let mainline = mainline(&mut graph, full.iter().copied().chain(levels), levels_key).await?;
    inputs.read(&mainline, Form::WithoutContent).await?;

    let mut held: BTreeMap<EventNid, Held> =
        states.conflicted.values().flatten().map(|value| (value.held.event_nid, value.held)).collect();
    // Their memberships are not among the values of the states.
    let unknown: Vec<EventNid> = full.iter().copied().filter(|nid| !held.contains_key(nid)).collect();
    if !unknown.is_empty() {
        for node in graph.reader.nodes(&unknown).await? {
            held.insert(node.nid, Held { event_nid: node.nid, membership: node.membership });
        }
    }
    // Results are compared with the log, at every key that can be among them.
    for key in keys.values() {
        states.in_log(*key).await?;
    }
    Ok(Prepared {
        rules: conflict.rules.clone(),
        conflicted: states.conflicted.into_keys().collect(),
        agreed: states.agreed,
        in_log: states.in_log,
        full: keys,
        unconflicted,
        held,
        events: inputs.events,
    })
}

/// The events that ruma looks at while it follows power levels from these events, which were read: all auth events of
/// each power levels event, and of the first ones.
async fn mainline<R: RoomReader>(
    graph: &mut AuthGraph<'_, R>,
    from: impl Iterator<Item = EventNid>,
    levels_key: Option<KeyNid>,
) -> Result<BTreeSet<EventNid>, ResolveError<R::Error>> {
    let mut mainline = BTreeSet::new();
    let mut step: Vec<EventNid> = from.collect();
    graph.load(step.iter().copied()).await?;
    while !step.is_empty() {
        graph.load_auth_of(step.iter().copied()).await?;
        let mut next = Vec::new();
        for nid in step {
            for auth in &graph.node(nid)?.auth {
                let is_link = levels_key.is_some() && graph.node(*auth)?.key == levels_key;
                if mainline.insert(*auth) && is_link {
                    next.push(*auth);
                }
            }
        }
        step = next;
    }
    Ok(mainline)
}

/// How much of an event is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    WithoutContent,
}

/// The events that were read.
struct Inputs<'a, 'r, R> {
    room: &'a Conflict<'a>,
    reader: &'r R,
    events: BTreeMap<EventNid, Arc<Pdu>>,
    bytes: u64,
}

impl<R: RoomReader> Inputs<'_, '_, R> {
    /// Reads those of these events that were not read yet.
    async fn read(&mut self, nids: &BTreeSet<EventNid>, form: Form) -> Result<(), ResolveError<R::Error>> {
        let unread: Vec<EventNid> = nids.iter().copied().filter(|nid| !self.events.contains_key(nid)).collect();
        for some in unread.chunks(EVENTS_AT_ONCE) {
            let pdus = self.reader.pdus(some).await?;
            for (nid, pdu) in some.iter().zip(pdus) {
                if *pdu.room_id != *self.room.room_id {
                    return Err(ResolveError::Foreign(*nid));
                }
                let pdu = if form == Form::Whole { pdu } else { without_content(&pdu) };
                self.bytes += (pdu.json.len() + size_of::<Pdu>()) as u64;
                self.events.insert(*nid, pdu);
            }
            if let Some(nid) = some.iter().find(|nid| !self.events.contains_key(nid)) {
                return Err(ResolveError::Missing(*nid));
            }
            if self.bytes > MOST_BYTES {
                return Err(ResolveError::EventsTooLarge(MOST_BYTES));
            }
        }
        Ok(())
    }

    /// The keys that ruma looks at: those of the events to resolve, which are given with their keys, and those that
    /// authorize them.
    async fn keys_to_look_at(
        &self,
        keys: &BTreeMap<EventNid, KeyNid>,
    ) -> Result<BTreeSet<KeyNid>, ResolveError<R::Error>> {
        let mut names: BTreeSet<(String, String)> = BTreeSet::new();
        for event_type in ["m.room.create", "m.room.power_levels"] {
            names.insert((event_type.to_owned(), String::new()));
        }
        for pdu in keys.keys().filter_map(|nid| self.events.get(nid)) {
            let Pdu { event_type, sender, state_key, content, .. } = &**pdu;
            // Ruma leaves out an event whose content is malformed.
            let types = auth_types(self.room.rules, event_type, sender, state_key.as_deref(), content);
            let types = types.unwrap_or_default().into_iter();
            names.extend(types.map(|(event_type, state_key)| (type_name(&event_type).into_owned(), state_key)));
        }
        let mut looked_at: BTreeSet<KeyNid> = keys.values().copied().collect();
        for (event_type, state_key) in names {
            looked_at.extend(self.reader.key(&event_type, &state_key).await?);
        }
        Ok(looked_at)
    }
}

/// The event as the mainline needs it.
fn without_content(pdu: &Pdu) -> Arc<Pdu> {
    let nothing: Arc<str> = Arc::default();
    Arc::new(Pdu { content: RawValue::NULL.to_owned(), json: nothing, ..pdu.clone() })
}
