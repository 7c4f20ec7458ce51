//! A room in memory for tests of walks and of state resolution: any graph of unsigned events, any states.
//!
//! Nothing is built, signed or checked unless a test asks for it, so that events may be as wrong as a test likes. The
//! room's [reads](crate::model) are ready at once, and are counted.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomVersionId, UserId, events::StateEventType, room_id,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Value as JsonValue, json};

use crate::{
    auth,
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid, Position, SideNid},
    model::{AuthNode, EventReader, GraphNode, GraphReader, LogReader, Reads, WholeState},
    pdu::Pdu,
    room_version::rules,
    sides::Side,
    standing::{Flags, StateAt},
    state_log::{Membership, StateEntry, StateHash, StateHashKey},
};

/// A whole state.
pub(crate) type State = BTreeMap<KeyNid, Held>;

/// A room with its events and the states of its log.
pub(crate) struct World {
    pub rules: RoomVersionRules,
    pub room_id: OwnedRoomId,
    pub create: EventNid,
    /// The states of the log, each from its position on.
    pub log: BTreeMap<Position, State>,
    pub counts: Counts,
    events: BTreeMap<EventNid, Event>,
    ids: BTreeMap<OwnedEventId, EventNid>,
    keys: BTreeMap<(String, String), KeyNid>,
    secret: StateHashKey,
}

/// The number of reads of each kind.
#[derive(Default, Debug)]
pub(crate) struct Counts {
    pub values: AtomicUsize,
    pub wholes: AtomicUsize,
    /// The events in all questions for nodes.
    pub auth_nodes: AtomicUsize,
    pub pdus: AtomicUsize,
}

#[derive(Clone)]
struct Event {
    pdu: Arc<Pdu>,
    auth: Arc<AuthNode>,
    graph: Arc<GraphNode>,
}

/// The parts of an event that a test gives. The rest follows from the room.
pub(crate) struct NewEvent<'a> {
    pub event_id: OwnedEventId,
    pub sender: &'a UserId,
    pub event_type: &'a str,
    pub state_key: Option<&'a str>,
    pub content: JsonValue,
    pub ts: i64,
}

impl World {
    /// A room with nothing but its create event.
    pub fn new(version: &RoomVersionId, creator: &UserId) -> Self {
        let rules = rules(version).expect("a supported version");
        let mut create = json!({
            "event_id": "$create", "sender": creator, "type": "m.room.create", "state_key": "",
            "content": { "room_version": version, "creator": creator }, "origin_server_ts": 0, "prev_events": [],
            "auth_events": [],
        });
        if !rules.authorization.room_create_event_id_as_room_id {
            create["room_id"] = "!room:a.test".into();
        }
        Self::from_events(rules, &[create])
    }

    /// A room with these events, of which the first one creates it. Each has its ID in its JSON, and comes after its auth
    /// events.
    pub fn from_events(rules: RoomVersionRules, events: &[JsonValue]) -> Self {
        let mut world = Self {
            rules,
            room_id: room_id!("!room:a.test").to_owned(),
            create: EventNid(0),
            log: BTreeMap::from([(Position(0), State::new())]),
            counts: Counts::default(),
            events: BTreeMap::new(),
            ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            secret: StateHashKey::new(&[7; 32]),
        };
        for event in events {
            let nid = world.add(event.clone());
            if world.events.len() == 1 {
                world.create = nid;
                world.room_id = world.pdu(nid).room_id.clone();
            }
        }
        world
    }

    /// Adds an event as it is, with its ID in its JSON.
    pub fn add(&mut self, mut event: JsonValue) -> EventNid {
        event.as_object_mut().expect("an object").entry("depth").or_insert_with(|| 1.into());
        let event_id: OwnedEventId = serde_json::from_value(event["event_id"].clone()).expect("an event ID");
        let nid = EventNid(self.events.len() as i64 + 1);
        let mut pdu = Pdu::from_stored(&self.rules, event_id.clone(), event.to_string()).expect("an event");
        pdu.rejected = event["rejected"] == true;
        let flags = if pdu.rejected { Flags::REJECTED } else { Flags::NONE };

        let mut auth: Vec<EventNid> = pdu.auth_events.iter().map(|id| self.ids[id]).collect();
        if self.rules.authorization.room_create_event_id_as_room_id && !self.events.is_empty() {
            auth.push(self.create);
        }
        let auth_depth = auth.iter().map(|nid| self.events[nid].auth.auth_depth + 1).max().unwrap_or_default();
        let key = pdu.state_key.as_ref().map(|state_key| self.key_of(&pdu.event_type, state_key));
        let membership =
            (pdu.event_type == "m.room.member" && pdu.state_key.is_some()).then(|| membership_of(&pdu)).flatten();
        let graph = GraphNode {
            nid,
            event_id: event_id.clone(),
            flags,
            place: None,
            before: StateAt::EMPTY,
            key,
            membership,
            depth: 1,
            ts: event["origin_server_ts"].as_i64().unwrap_or_default(),
            prev: pdu.prev_events.iter().filter_map(|id| self.ids.get(id).copied()).collect(),
        };
        let auth = AuthNode { nid, auth: auth.into(), auth_depth, flags, key };
        self.events.insert(nid, Event { pdu: Arc::new(pdu), auth: Arc::new(auth), graph: Arc::new(graph) });
        let before = self.ids.insert(event_id, nid);
        assert!(before.is_none(), "an ID is used once");
        nid
    }

    /// Adds an event with the auth events that `state` has for it.
    pub fn send(&mut self, state: &State, event: NewEvent<'_>) -> EventNid {
        let NewEvent { event_id, sender, event_type, state_key, content, ts } = event;
        let raw = serde_json::value::to_raw_value(&content).expect("JSON");
        let types =
            auth::auth_types(&self.rules, event_type, sender, state_key, &raw).expect("content of a known form");
        let auth = types.iter().filter_map(|(event_type, state_key)| self.in_state(state, event_type, state_key));
        let auth: Vec<OwnedEventId> = auth.map(|pdu| pdu.event_id.clone()).collect();
        // The creator may join right after the create event. No other rule looks at previous events.
        let prev: Vec<&OwnedEventId> = match state.len() {
            1 => state.values().map(|held| &self.pdu(held.event_nid).event_id).collect(),
            _ => Vec::new(),
        };
        let mut event = json!({
            "event_id": event_id, "room_id": self.room_id, "sender": sender, "type": event_type, "content": content,
            "origin_server_ts": ts, "prev_events": prev, "auth_events": auth,
        });
        if let Some(state_key) = state_key {
            event["state_key"] = state_key.into();
        }
        self.add(event)
    }

    /// Returns whether `state` allows the event.
    pub fn allows(&self, state: &State, nid: EventNid) -> bool {
        let found = |event_type: &StateEventType, state_key: &str| self.in_state(state, event_type, state_key);
        auth::check_against(&self.rules, self.pdu(nid), found).is_ok()
    }

    /// Sets an event of a state event's key.
    pub fn set(&self, state: &mut State, nid: EventNid) {
        state.insert(self.events[&nid].auth.key.expect("a state event"), self.held(nid));
    }

    /// The state of these events.
    pub fn state(&self, nids: &[EventNid]) -> State {
        let mut state = State::new();
        nids.iter().for_each(|nid| self.set(&mut state, *nid));
        state
    }

    /// The difference of a state to the log.
    pub fn delta(&self, state: &State, base: Position) -> StateDelta {
        let log = self.at(base);
        let gone = log.keys().filter(|key| !state.contains_key(key)).map(|key| (*key, None));
        let here = state.iter().filter(|(key, held)| log.get(key) != Some(*held));
        gone.chain(here.map(|(key, held)| (*key, Some(*held)))).collect()
    }

    /// The log's state with a difference.
    pub fn with(&self, base: Position, delta: &StateDelta) -> State {
        let mut state = self.at(base).clone();
        for (key, held) in delta.iter() {
            match held {
                Some(held) => drop(state.insert(key, held)),
                None => drop(state.remove(&key)),
            }
        }
        state
    }

    /// Rejects a stored event, as if that had been found out later.
    pub fn reject(&mut self, nid: EventNid) {
        let event = self.events.get_mut(&nid).expect("a stored event");
        Arc::make_mut(&mut event.pdu).rejected = true;
        Arc::make_mut(&mut event.auth).flags |= Flags::REJECTED;
        Arc::make_mut(&mut event.graph).flags |= Flags::REJECTED;
    }

    pub fn pdu(&self, nid: EventNid) -> &Arc<Pdu> {
        &self.events[&nid].pdu
    }

    pub fn auth_node(&self, nid: EventNid) -> &AuthNode {
        &self.events[&nid].auth
    }

    pub fn nid(&self, event_id: &EventId) -> EventNid {
        self.ids[event_id]
    }

    pub fn held(&self, nid: EventNid) -> Held {
        Held { event_nid: nid, membership: self.events[&nid].graph.membership }
    }

    /// All events, oldest first.
    pub fn nids(&self) -> impl DoubleEndedIterator<Item = EventNid> + '_ {
        self.events.keys().copied()
    }

    /// The number of a key, which is made if there is none.
    pub fn key_of(&mut self, event_type: &str, state_key: &str) -> KeyNid {
        let next = KeyNid(self.keys.len() as i64 + 1);
        *self.keys.entry((event_type.to_owned(), state_key.to_owned())).or_insert(next)
    }

    fn in_state(&self, state: &State, event_type: &StateEventType, state_key: &str) -> Option<Arc<Pdu>> {
        let key = self.keys.get(&(event_type.to_string(), state_key.to_owned()))?;
        state.get(key).map(|held| Arc::clone(self.pdu(held.event_nid)))
    }

    fn at(&self, position: Position) -> &State {
        self.log.range(..=position).next_back().expect("the log starts at 0").1
    }

    fn event(&self, nid: EventNid) -> Result<&Event, NotInWorld> {
        self.events.get(&nid).ok_or(NotInWorld)
    }
}

fn membership_of(pdu: &Pdu) -> Option<Membership> {
    let content: JsonValue = serde_json::from_str(pdu.content.get()).ok()?;
    Membership::named(content["membership"].as_str()?)
}

/// The room does not have it.
#[derive(Debug, thiserror::Error)]
#[error("not in this world")]
pub(crate) struct NotInWorld;

impl Reads for World {
    type Error = NotInWorld;
}

impl LogReader for World {
    async fn value(&self, key: KeyNid, at: Position) -> Result<Option<Held>, NotInWorld> {
        self.counts.values.fetch_add(1, Ordering::Relaxed);
        Ok(self.at(at).get(&key).copied())
    }

    async fn between(&self, a: Position, b: Position) -> Result<StateDelta, NotInWorld> {
        Ok(self.delta(self.at(a), b))
    }

    async fn whole(&self, at: Position) -> Result<WholeState, NotInWorld> {
        self.counts.wholes.fetch_add(1, Ordering::Relaxed);
        Ok(self.at(at).iter().map(|(key, held)| (*key, *held)).collect())
    }

    async fn hash(&self, at: Position) -> Result<StateHash, NotInWorld> {
        let entry = |held: &Held| StateEntry { event_nid: held.event_nid, pos: at, membership: held.membership };
        let entries: Vec<_> = self.at(at).iter().map(|(key, held)| (*key, entry(held))).collect();
        Ok(StateHash::of(&self.secret, &entries))
    }

    async fn position_of(&self, hash: StateHash) -> Result<Option<Position>, NotInWorld> {
        for position in self.log.keys() {
            if self.hash(*position).await? == hash {
                return Ok(Some(*position));
            }
        }
        Ok(None)
    }

    async fn side(&self, _: SideNid) -> Result<Arc<Side>, NotInWorld> {
        Err(NotInWorld)
    }
}

impl GraphReader for World {
    async fn nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<GraphNode>>, NotInWorld> {
        nids.iter().map(|nid| Ok(Arc::clone(&self.event(*nid)?.graph))).collect()
    }

    async fn auth_nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<AuthNode>>, NotInWorld> {
        self.counts.auth_nodes.fetch_add(nids.len(), Ordering::Relaxed);
        nids.iter().map(|nid| Ok(Arc::clone(&self.event(*nid)?.auth))).collect()
    }

    async fn find(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, EventNid>, NotInWorld> {
        Ok(ids.iter().filter_map(|id| Some((id.clone(), *self.ids.get(id)?))).collect())
    }

    async fn coverers(&self, _: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, Vec<EventNid>>, NotInWorld> {
        Ok(BTreeMap::new())
    }
}

impl EventReader for World {
    async fn pdus(&self, nids: &[EventNid]) -> Result<Vec<Arc<Pdu>>, NotInWorld> {
        self.counts.pdus.fetch_add(nids.len(), Ordering::Relaxed);
        nids.iter().map(|nid| Ok(Arc::clone(&self.event(*nid)?.pdu))).collect()
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, NotInWorld> {
        Ok(self.keys.get(&(event_type.to_owned(), state_key.to_owned())).copied())
    }
}
