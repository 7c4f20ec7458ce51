//! The inputs of a [`Shard`](super::Shard): commits, answers to its effects, and the passing of time.

use std::sync::Arc;

use super::{EffectNumber, verdict::SendResult};
use crate::ids::{EventNid, Position, RoomNid, ServerNid, UserNid};

/// Something that happened. An answer to an effect has the effect's number: one to an earlier effect is ignored.
#[derive(Clone, Debug)]
pub enum SenderInput {
    /// The commit log was read up to `pos`. `work` follows from `pos` itself, and not from later or earlier positions of the
    /// same batch. Positions ascend; a position without work may be left out.
    Committed { pos: Position, work: Vec<Outgoing> },
    /// An EDU that nobody stores: typing, a receipt, presence.
    Edu(EduOut),
    /// The server has sent an authenticated request.
    Contact(ServerNid),
    /// This server was away for long: each of these gets an empty transaction, so that it knows that we are back.
    Announce(Vec<ServerNid>),
    /// The answer to [`Load`](super::SenderEffect::Load).
    Loaded { server: ServerNid, number: EffectNumber, loaded: Loaded },
    /// The answer to [`ReadMissed`](super::SenderEffect::ReadMissed).
    Missed { server: ServerNid, number: EffectNumber, page: MissedPage },
    /// The database did not answer a [`Load`](super::SenderEffect::Load) or
    /// [`ReadMissed`](super::SenderEffect::ReadMissed). It is asked again later.
    NotRead { server: ServerNid, number: EffectNumber },
    /// The answer to [`Send`](super::SenderEffect::Send). `reason` says for the operator why it failed.
    Answered { server: ServerNid, number: EffectNumber, result: SendResult, reason: String },
    /// The row of a [`Lag`](super::SenderEffect::Lag) is committed.
    LagStored { server: ServerNid, number: EffectNumber },
    /// The time of [`Shard::due_at`](super::Shard::due_at) has come.
    Tick,
}

/// Work for destinations that follows from a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outgoing {
    /// An event for these servers.
    Event { room: RoomNid, event: EventNid, to: Vec<ServerNid> },
    /// A stored item: a message to devices, or an event for a server outside its room. `seq` is that of the newest one of
    /// the server. Told again at the start, for each server that has items.
    Item { server: ServerNid, seq: i64 },
    /// A change of a user's devices or cross-signing keys.
    DeviceList { user: UserNid, to: Vec<ServerNid> },
}

/// An EDU that is in memory alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EduOut {
    pub key: EduKey,
    pub to: Vec<ServerNid>,
    pub json: Arc<str>,
}

/// The subject of an EDU: a newer one with the same key replaces one that is not sent yet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EduKey {
    Typing { room: RoomNid, user: UserNid },
    Receipt { room: RoomNid, user: UserNid, thread: Option<Arc<str>> },
    Presence { user: UserNid },
}

/// The parts of a transaction, as they are sent. Each list is in the order of the question. It may be shorter, so that all
/// together have no more than the asked bytes; then lists are cut that are asked for later.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// Empty only if there are none.
    pub items: Vec<LoadedItem>,
    /// The EDUs of each change. Those of a user whose devices are gone may be none.
    pub devices: Vec<Vec<Arc<str>>>,
    /// `None`: the event is no longer stored.
    pub events: Vec<Option<Arc<str>>>,
}

/// A stored item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadedItem {
    pub seq: i64,
    pub kind: ItemKind,
    pub json: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ItemKind {
    Edu,
    Pdu,
}

/// A part of what a destination has missed, in ascending order of positions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissedPage {
    /// At most [`MAX_PAGE`](super::MAX_PAGE), and likewise `devices`.
    pub events: Vec<MissedEvent>,
    /// Changes of devices: for each user the latest one suffices.
    pub devices: Vec<(Position, UserNid)>,
    /// Everything up to here is in the page. On the last page, a position that was committed before the page was read, and
    /// not before that of the question.
    pub upto: Position,
    /// Set if nothing more was missed.
    pub is_last: bool,
    /// Set if the events are the newest of each room, which stand for those before them: `pos` is then that of our newest
    /// event in the room, and a transaction has events of one room. Else they are all events, from the commit log.
    pub by_room: bool,
}

/// An event that a destination has missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissedEvent {
    pub pos: Position,
    pub room: RoomNid,
    pub event: EventNid,
}
