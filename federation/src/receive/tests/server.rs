//! A server in memory that stores decisions as they are, and other servers that send it anything.
//!
//! The state before each event is kept whole beside the log and the sides, made from the whole states after its previous
//! events, so that both can be compared.

mod reads;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, ServerName, ServerSigningKeyId, UserId,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::super::{local::LocalError, *};
use crate::{
    EventPosition, PublicKey, ServerSigner, build_and_sign,
    held::StateDelta,
    model::{AuthNode, EventReader, GraphNode, GraphReader, LogReader, WholeState},
    received::{self, Signatures},
    resolve::{Conflict, prepare},
    rules,
    sides::store_as,
    test_ready::ready,
    test_room::draft,
};

pub(super) type State = BTreeMap<KeyNid, Held>;

/// Bytes of results of resolutions that a test may keep.
const CACHE_BYTES: u64 = 1 << 20;

pub(super) fn id_of(server: &Server, nid: EventNid) -> OwnedEventId {
    server.events[&nid].pdu.event_id.clone()
}

/// The server under test.
pub(super) struct Server {
    pub rules: RoomVersionRules,
    pub room_id: OwnedRoomId,
    pub create: Option<EventNid>,
    pub extremities: Extremities,
    pub reject_epoch: i64,
    pub partial: bool,
    pub resolutions: Resolutions,
    pub events: BTreeMap<EventNid, Event>,
    /// The number of resolutions that were run.
    pub runs: AtomicUsize,
    secret: StateHashKey,
    log: BTreeMap<Position, State>,
    sides: BTreeMap<SideNid, Arc<Side>>,
    ids: BTreeMap<OwnedEventId, EventNid>,
    keys: Mutex<BTreeMap<(String, String), KeyNid>>,
    edges: BTreeMap<OwnedEventId, BTreeMap<EventNid, bool>>,
    waiting: BTreeMap<OwnedEventId, Vec<WaitingRedaction>>,
    next: AtomicI64,
}

/// A stored event.
#[derive(Clone)]
pub(super) struct Event {
    pub pdu: Arc<Pdu>,
    pub graph: Arc<GraphNode>,
    auth: Arc<AuthNode>,
    /// The state before it, whole.
    pub before: State,
}

/// Any signature is right: the tests are about rules.
struct AnySignature;

impl Signatures for AnySignature {
    fn verify(&self, _: &PublicKey, _: &[u8], _: &[u8; 64]) -> bool {
        true
    }
}

/// An event that another server may send.
#[derive(Clone, Debug)]
pub(super) struct Made<'a> {
    pub sender: &'a UserId,
    pub event_type: &'a str,
    pub state_key: Option<&'a str>,
    pub content: serde_json::Value,
    pub redacts: Option<OwnedEventId>,
    pub prev: Vec<OwnedEventId>,
    pub auth: Vec<OwnedEventId>,
    pub depth: u64,
    pub ts: i64,
}

impl Server {
    pub fn new(version: &RoomVersionId, room_id: OwnedRoomId) -> Self {
        Self {
            rules: rules(version).unwrap(),
            room_id,
            create: None,
            extremities: Extremities::default(),
            reject_epoch: 0,
            partial: false,
            resolutions: Resolutions::new(CACHE_BYTES),
            events: BTreeMap::new(),
            runs: AtomicUsize::new(0),
            secret: StateHashKey::new(&[7; 32]),
            log: BTreeMap::from([(Position::BEFORE_ALL, State::new())]),
            sides: BTreeMap::new(),
            ids: BTreeMap::new(),
            keys: Mutex::default(),
            edges: BTreeMap::new(),
            waiting: BTreeMap::new(),
            next: AtomicI64::new(1),
        }
    }

    pub fn facts(&self) -> RoomFacts<'_> {
        RoomFacts {
            rules: &self.rules,
            room_id: &self.room_id,
            create: self.create,
            secret: &self.secret,
            resolutions: &self.resolutions,
        }
    }

    pub fn head(&self) -> HeadView<'_> {
        let (state_pos, state) = self.log.last_key_value().unwrap();
        HeadView {
            extremities: &self.extremities,
            state_pos: *state_pos,
            hash: self.hash_of(state),
            reject_epoch: self.reject_epoch,
            partial: self.partial,
        }
    }

    pub fn judge(&self, incoming: Incoming) -> Verdict {
        ready(super::super::judge(self, &self.facts(), self.head(), incoming, self)).unwrap()
    }

    pub fn settle(&self, judged: Box<Judged>) -> Settled {
        ready(super::super::settle(self, &self.facts(), self.head(), judged, self)).unwrap()
    }

    /// Receives an event that can be stored. Returns the decision, which is stored.
    #[track_caller]
    pub fn receive(&mut self, event: &Pdu, mode: Mode) -> Decision {
        self.take(Incoming::new(verified(&self.rules, event), mode))
    }

    #[track_caller]
    pub fn push(&mut self, event: &Pdu) -> Decision {
        self.receive(event, Mode::Pushed)
    }

    #[track_caller]
    pub fn take(&mut self, incoming: Incoming) -> Decision {
        let Verdict::Judged(judged) = self.judge(incoming) else { panic!("the event can be stored") };
        let Settled::Store(decision) = self.settle(judged) else { panic!("the room has not changed") };
        self.commit(&decision);
        *decision
    }

    /// Builds an event of a local user and decides about it.
    pub fn send(&mut self, sender: &UserId, event: crate::EventDraft) -> Result<Decision, LocalError<NotStored>> {
        let (facts, head) = (self.facts(), self.head());
        let base = ready(local::base(self, &facts, head, (sender, &event), self))?;
        let pdu = build(&self.rules, &self.room_id, &base, sender, event);
        let decision = ready(local::decide(self, &facts, head, Arc::new(pdu), self))?;
        self.commit(&decision);
        Ok(*decision)
    }

    /// Stores a decision at the next position.
    #[track_caller]
    pub fn commit(&mut self, decision: &Decision) {
        let pos = Position(self.next.fetch_add(1, Ordering::Relaxed));
        let mut pdu = decision.event.pdu().clone();
        pdu.rejected = decision.flags.contains(Flags::REJECTED);
        assert_eq!(self.events.contains_key(&decision.nid), decision.was_outlier, "a number has one event");
        for side in &decision.sides {
            assert!(side.parent.as_ref().is_none_or(|parent| self.sides.contains_key(&parent.nid)), "parents first");
            self.sides.insert(side.nid, Arc::clone(side));
        }
        let before = self.whole_before(decision);
        if !decision.flags.contains(Flags::OUTLIER) {
            assert_eq!(self.whole(decision.before), before, "the state before {:?}", decision.event.pdu());
        }
        let graph = GraphNode {
            nid: decision.nid,
            event_id: pdu.event_id.clone(),
            flags: decision.flags,
            place: match decision.placing {
                Placing::EndOfLine => Some(TimelinePlace::on_line(pos)),
                Placing::Gap(place) => Some(place),
                Placing::Nowhere => None,
            },
            before: decision.before,
            key: decision.key,
            membership: decision.membership,
            depth: i64::try_from(pdu.depth).unwrap(),
            ts: pdu.origin_server_ts,
            prev: decision.prev.clone(),
        };
        let auth = AuthNode {
            nid: decision.nid,
            auth: decision.auth.clone().into(),
            auth_depth: decision.auth_depth,
            flags: decision.flags,
            key: decision.key,
        };
        self.ids.insert(pdu.event_id.clone(), decision.nid);
        if pdu.event_type == "m.room.create" && self.create.is_none() {
            self.create = Some(decision.nid);
        }
        let event = Event { pdu: Arc::new(pdu), graph: Arc::new(graph), auth: Arc::new(auth), before };
        self.events.insert(decision.nid, event);
        for (missing, covers) in &decision.missing {
            *self.edges.entry(missing.clone()).or_default().entry(decision.nid).or_default() |= covers;
        }
        if let Some(Redaction::Pending { target, by_power }) = &decision.redaction {
            let waiting = WaitingRedaction { nid: decision.nid, by_power: *by_power };
            self.waiting.entry(target.clone()).or_default().push(waiting);
        }
        self.move_head(decision, pos);
    }

    fn move_head(&mut self, decision: &Decision, pos: Position) {
        let is_state = !decision.flags.contains(Flags::OUTLIER);
        if is_state && (decision.extremity.is_some() || !decision.covers.is_empty()) {
            let is_tip = self.extremities.accept(decision.extremity.clone(), &decision.covers).unwrap();
            assert_eq!(is_tip, decision.flags.contains(Flags::TIP));
        }
        let mut state = self.state().clone();
        for (key, held) in &decision.changes {
            let was = match held {
                Some(held) => state.insert(*key, *held),
                None => state.remove(key),
            };
            assert_ne!(was, *held, "a change changes something");
        }
        self.log.insert(pos, state);
        if is_state {
            let after: Vec<_> = self.extremities.iter().map(|event| self.whole_after(event.nid)).collect();
            assert_eq!(self.state(), &self.resolve(after), "the state of {:?}", self.extremities);
        }
    }

    /// The room's current state.
    pub fn state(&self) -> &State {
        self.log.last_key_value().unwrap().1
    }

    /// The ID of the current event of a key.
    pub fn current(&self, event_type: &str, state_key: &str) -> Option<OwnedEventId> {
        let key = *self.keys.lock().unwrap().get(&(event_type.to_owned(), state_key.to_owned()))?;
        Some(id_of(self, self.state().get(&key)?.event_nid))
    }

    /// The IDs of the forward extremities, in their order.
    pub fn tips(&self) -> Vec<OwnedEventId> {
        self.extremities.iter().map(|extremity| extremity.event_id.clone()).collect()
    }

    pub fn event(&self, event_id: &OwnedEventId) -> &Event {
        &self.events[&self.ids[event_id]]
    }

    /// A state with IDs, which servers can compare.
    pub fn named(&self, state: &State) -> BTreeMap<(String, String), OwnedEventId> {
        let pdu = |held: &Held| &self.events[&held.event_nid].pdu;
        let key = |pdu: &Pdu| (pdu.event_type.clone(), pdu.state_key.clone().unwrap());
        state.values().map(|held| (key(pdu(held)), pdu(held).event_id.clone())).collect()
    }

    pub fn nid(&self, event_id: &OwnedEventId) -> EventNid {
        self.ids[event_id]
    }

    /// A state that another server told: that after these events with another event in one key.
    pub fn tell(&mut self, prev: &[OwnedEventId], key: KeyNid, held: Held) -> StateAt {
        let state = self.after(prev);
        let base = Position::BEFORE_ALL;
        let mut delta: StateDelta = state.into_iter().map(|(key, held)| (key, Some(held))).collect();
        delta.set(key, Some(held));
        let told = ready(store_as(self, &self.secret, (&delta, base), &[], || Ids::side(self))).unwrap();
        self.sides.extend(told.side.map(|side| (side.nid, side)));
        told.at
    }

    /// The accepted events that no accepted event reaches, directly or through failed ones, in the order of their IDs.
    pub fn open_ends(&self) -> Vec<OwnedEventId> {
        let is_accepted = |id: &OwnedEventId| self.event(id).graph.flags.is_accepted();
        let mut covered: Vec<&OwnedEventId> = Vec::new();
        let mut next: Vec<&OwnedEventId> =
            self.ids.keys().filter(|id| is_accepted(id)).flat_map(|id| &self.event(id).pdu.prev_events).collect();
        while let Some(id) = next.pop() {
            if !covered.contains(&id) {
                covered.push(id);
                next.extend(self.event(id).pdu.prev_events.iter().filter(|_| !is_accepted(id)));
            }
        }
        self.ids.keys().filter(|id| is_accepted(id) && !covered.contains(id)).cloned().collect()
    }

    /// Marks a stored event as rejected, as restating does.
    pub fn reject(&mut self, event_id: &OwnedEventId) {
        let event = self.events.get_mut(&self.ids[event_id]).unwrap();
        Arc::make_mut(&mut event.pdu).rejected = true;
        Arc::make_mut(&mut event.graph).flags |= Flags::REJECTED;
        Arc::make_mut(&mut event.auth).flags |= Flags::REJECTED;
        self.reject_epoch += 1;
    }

    /// The whole state with this name.
    pub fn whole(&self, at: StateAt) -> State {
        let Some(nid) = at.side else { return self.at(at.pos).clone() };
        let side = &self.sides[&nid];
        let mut state = self.at(side.base_pos).clone();
        for (key, held) in side.against_base().iter() {
            match held {
                Some(held) => drop(state.insert(key, held)),
                None => drop(state.remove(&key)),
            }
        }
        assert_eq!(self.hash_of(&state), side.hash);
        state
    }

    /// The state after a stored event, from the whole state before it.
    fn whole_after(&self, nid: EventNid) -> State {
        let event = &self.events[&nid];
        let mut state = event.before.clone();
        if let Some(key) = event.graph.key.filter(|_| !event.graph.flags.contains(Flags::REJECTED)) {
            state.insert(key, Held { event_nid: nid, membership: event.graph.membership });
        }
        state
    }

    /// The state after these stored events.
    pub fn after(&self, prev: &[OwnedEventId]) -> State {
        self.resolve(prev.iter().map(|prev| self.whole_after(self.ids[prev])).collect())
    }

    fn whole_before(&self, decision: &Decision) -> State {
        if decision.flags.contains(Flags::CLAIMED) {
            return self.whole(decision.before);
        }
        self.resolve(decision.prev.iter().map(|prev| self.whole_after(*prev)).collect())
    }

    /// The state of several, resolved from the empty one, without a cache.
    fn resolve(&self, mut states: Vec<State>) -> State {
        states.dedup();
        if states.len() < 2 {
            return states.pop().unwrap_or_default();
        }
        let deltas: Vec<StateDelta> =
            states.iter().map(|state| state.iter().map(|(key, held)| (*key, Some(*held))).collect()).collect();
        let conflict = Conflict {
            base: Position::BEFORE_ALL,
            states: deltas.iter().collect(),
            rules: &self.rules,
            room_id: &self.room_id,
            create: self.create.unwrap(),
        };
        let resolved = ready(prepare(self, &conflict)).unwrap().run().unwrap();
        resolved.changes.iter().filter_map(|(key, held)| Some((key, held?))).collect()
    }

    fn hash_of(&self, state: &State) -> StateHash {
        let entry =
            |hash: StateHash, (key, held): (&KeyNid, &Held)| hash.with(&self.secret, *key, None, Some(held.event_nid));
        state.iter().fold(StateHash::EMPTY, entry)
    }

    fn at(&self, at: Position) -> &State {
        self.log.range(..=at).next_back().unwrap().1
    }
}

/// An event of another server as it arrives.
pub(super) fn verified(rules: &RoomVersionRules, event: &Pdu) -> Verified {
    let json = RawValue::from_string(event.json.to_string()).unwrap();
    let key = |_: &ServerName, _: &ServerSigningKeyId| PublicKey::from_bytes(&[0; 32]);
    received::read(rules, &event.room_id, &json).unwrap().verify(&AnySignature, &key).unwrap()
}

fn build(
    rules: &RoomVersionRules,
    room_id: &RoomId,
    base: &local::Base,
    sender: &UserId,
    event: crate::EventDraft,
) -> Pdu {
    let is_create = event.event_type == "m.room.create";
    let position = EventPosition {
        room_id: Some(room_id).filter(|_| !(is_create && rules.authorization.room_create_event_id_as_room_id)),
        sender,
        prev_events: &base.prev_events,
        auth_events: &base.auth_events,
        depth: base.depth,
        origin_server_ts: 1_700_000_000_000,
    };
    build_and_sign(rules, &ServerSigner::generate(sender.server_name().to_owned()), event, position).unwrap()
}

impl Made<'_> {
    /// Builds the event as its sender's server does, whether or not a room allows it.
    pub fn build(self, rules: &RoomVersionRules, room_id: &RoomId) -> Pdu {
        let Self { sender, event_type, state_key, content, redacts, prev, auth, depth, ts } = self;
        let is_create = event_type == "m.room.create";
        let position = EventPosition {
            room_id: Some(room_id).filter(|_| !(is_create && rules.authorization.room_create_event_id_as_room_id)),
            sender,
            prev_events: &prev,
            auth_events: &auth,
            depth,
            origin_server_ts: ts,
        };
        let event = crate::EventDraft { redacts, ..draft(event_type, state_key, content) };
        build_and_sign(rules, &ServerSigner::generate(sender.server_name().to_owned()), event, position).unwrap()
    }
}

/// The event is not stored.
#[derive(Debug, thiserror::Error)]
#[error("not stored")]
pub(super) struct NotStored;
