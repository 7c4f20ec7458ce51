//! Reads of one room: its events, their graph, and its states.
//!
//! Code of this crate that needs stored data asks for it by these traits. They are made to be implemented over a
//! database and its caches, and over maps in memory, whose futures are ready at once. Nothing here asks another server.
//!
//! A reader belongs to one room. The methods that walks use take many numbers or IDs at once, so that a step of a walk
//! is one question to the database.

use std::{collections::BTreeMap, sync::Arc};

use ruma::OwnedEventId;

use crate::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid, Position, SideNid, TimelinePlace},
    pdu::Pdu,
    sides::Side,
    standing::{Flags, StateAt},
    state_log::{Membership, StateHash},
};

/// An event as a walk through auth events sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthNode {
    pub nid: EventNid,
    /// The auth events: those that the event names, and from room version 12 on the create event too, which it does
    /// not name.
    pub auth: Box<[EventNid]>,
    /// One more than the greatest auth depth of the auth events; 0 for the create event.
    pub auth_depth: i64,
    pub flags: Flags,
    /// Set for state events only.
    pub key: Option<KeyNid>,
}

/// An event as a walk through previous events sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphNode {
    pub nid: EventNid,
    pub event_id: OwnedEventId,
    pub flags: Flags,
    /// The place in the timeline. `None`: the event has none, because it was not accepted.
    pub place: Option<TimelinePlace>,
    /// The state before the event; empty for an outlier, whose state is not known.
    pub before: StateAt,
    /// Set for state events only.
    pub key: Option<KeyNid>,
    /// The membership that the event says; only for `m.room.member`.
    pub membership: Option<Membership>,
    /// The depth that the event says.
    pub depth: i64,
    /// The time that the event says, in milliseconds since the Unix epoch. It may be negative.
    pub ts: i64,
    /// The stored events of this room among the previous ones.
    pub prev: Vec<EventNid>,
}

/// A whole state, in the order of keys.
pub type WholeState = Arc<[(KeyNid, Held)]>;

/// A source of stored data, which may fail.
pub trait Reads {
    /// The reading failed, or stored data is damaged. Absence is not an error.
    type Error: std::error::Error + Send + Sync + 'static;
}

/// The states of a room: its state log, and its sides.
///
/// # Errors
/// A side that is not stored is an error. A position before the room's first change is not: the state there is empty.
pub trait LogReader: Reads + Sync {
    /// The event that holds `key` in the log's state at `at`. `None`: the state lacks the key.
    fn value(&self, key: KeyNid, at: Position) -> impl Future<Output = Result<Option<Held>, Self::Error>> + Send;

    /// The difference of the log's state at `a` to its state at `b`, of which either may be the later one. It has the
    /// keys whose event differs, and no other.
    fn between(&self, a: Position, b: Position) -> impl Future<Output = Result<StateDelta, Self::Error>> + Send;

    /// The log's whole state at `at`.
    fn whole(&self, at: Position) -> impl Future<Output = Result<WholeState, Self::Error>> + Send;

    /// The hash of the log's state at `at`.
    fn hash(&self, at: Position) -> impl Future<Output = Result<StateHash, Self::Error>> + Send;

    /// A position at which the log's state has this hash. Looks only at the current state, the log's tail and the
    /// checkpoints, so `None` does not mean that there is no such position.
    fn position_of(&self, hash: StateHash) -> impl Future<Output = Result<Option<Position>, Self::Error>> + Send;

    /// The side with this number, with all its parents.
    fn side(&self, nid: SideNid) -> impl Future<Output = Result<Arc<Side>, Self::Error>> + Send;

    /// A side whose state has this hash, so that all children of an event share one. A reader that does not look for it
    /// costs rows, and no more.
    fn side_with(&self, _hash: StateHash) -> impl Future<Output = Result<Option<Arc<Side>>, Self::Error>> + Send {
        std::future::ready(Ok(None))
    }
}

/// The graph of a room's events.
///
/// # Errors
/// A number without a stored event is an error. An ID without one is not.
pub trait GraphReader: Reads + Sync {
    /// The events with these numbers, in the order of the numbers.
    fn nodes(&self, nids: &[EventNid]) -> impl Future<Output = Result<Vec<Arc<GraphNode>>, Self::Error>> + Send;

    /// The events with these numbers and their auth events, in the order of the numbers.
    fn auth_nodes(&self, nids: &[EventNid]) -> impl Future<Output = Result<Vec<Arc<AuthNode>>, Self::Error>> + Send;

    /// The stored events with these IDs. An event of another room is not found: with it, its state could come into
    /// this room.
    fn find(
        &self,
        ids: &[OwnedEventId],
    ) -> impl Future<Output = Result<BTreeMap<OwnedEventId, EventNid>, Self::Error>> + Send;

    /// The accepted events that name these IDs as previous ones, and came when those were not known. IDs without such
    /// events are left out.
    fn coverers(
        &self,
        ids: &[OwnedEventId],
    ) -> impl Future<Output = Result<BTreeMap<OwnedEventId, Vec<EventNid>>, Self::Error>> + Send;
}

/// The events of a room, and the numbers of keys of its state.
///
/// # Errors
/// A number without a stored event is an error.
pub trait EventReader: Reads + Sync {
    /// The events with these numbers, in the order of the numbers, as they are stored: a redacted one in its redacted
    /// form. [`Pdu::rejected`] is set from the flags.
    fn pdus(&self, nids: &[EventNid]) -> impl Future<Output = Result<Vec<Arc<Pdu>>, Self::Error>> + Send;

    /// The number of a key of state. `None`: no stored event has this key. Makes no new number.
    fn key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> impl Future<Output = Result<Option<KeyNid>, Self::Error>> + Send;
}

/// All reads of a room.
pub trait RoomReader: LogReader + GraphReader + EventReader {}

impl<R: LogReader + GraphReader + EventReader> RoomReader for R {}
