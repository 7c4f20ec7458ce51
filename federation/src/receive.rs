//! Deciding about events: what an event of another server, or of ours, does to its room.
//!
//! An event is decided about in two parts. [`judge`] is slow and runs outside the room's turn: the auth rules against the
//! auth events and against the state before the event. [`settle`] runs in the turn and should find all it needs in memory:
//! the rules against the current state, the forward extremities, and the new state of the room. Its answer, a [`Decision`],
//! has everything that is stored, and nobody decides anything after it. The simulation stores it as it is; the server
//! dresses it in words and rows.
//!
//! ```text
//! loop {
//!     judge: Wait, Dropped, Known -> the end
//!     take the turn
//!     settle: Store -> commit it before the turn ends; Known -> the end
//!     give the turn back
//!     Moved -> foresee, and settle again;  Stale -> judge again
//! }
//! ```
//!
//! Promises:
//! - Nothing here asks another server. An event that needs one is given back as [`Verdict::Wait`].
//! - An error leaves the room as it is. The same event may be judged again.
//! - An event is stored only if its auth events are stored in this room. Without its previous events, or states that were
//!   told for them, it is stored as an outlier or not at all.
//! - A rejected event changes no state, of the room or of events after it.
//! - The answer does not depend on the depth or the time that an event says.
//!
//! The steps are those of the server-server API, [Checks performed on receipt of a
//! PDU](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu); [`crate::received`] has the
//! first three.
//!
//! - [`decide`]: outside the turn. [`commit`]: in the turn. [`effect`]: what both look for.
//! - [`local`]: events of local users, which take the same way. [`source`]: what the two origins have in common.
//! - [`rules`]: the auth rules against auth events and states. [`states`]: one state from several.
//! - [`redaction`]: what an event redacts, and what redacts it.
//! - [`overlay`]: the room's reads with what is new and not stored.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{OwnedEventId, RoomId, room_version_rules::RoomVersionRules};

use crate::{
    auth::AuthRuleError,
    graph::{Extremities, Extremity, NoneLeft},
    held::Held,
    ids::{EventNid, KeyNid, Position, SideNid, TimelinePlace},
    model::Reads,
    pdu::Pdu,
    received::Verified,
    resolve::{Alarm, Prepared, Resolutions, ResolveError, Resolved, RunError},
    sides::Side,
    standing::{Flags, StateAt},
    state_log::{Membership, StateHash, StateHashKey},
};

mod commit;
mod decide;
mod effect;
pub mod local;
mod overlay;
mod redaction;
mod rules;
mod source;
mod states;

#[cfg(test)]
mod tests;

pub use self::{
    commit::settle,
    decide::{Judged, foresee, judge},
};

/// The facts of a room that never change, and its cache.
#[derive(Clone, Copy, Debug)]
pub struct RoomFacts<'a> {
    pub rules: &'a RoomVersionRules,
    pub room_id: &'a RoomId,
    /// The room's create event. `None`: it is not stored yet, so only it can be decided about.
    pub create: Option<EventNid>,
    /// The key with which the database hashes states.
    pub secret: &'a StateHashKey,
    pub resolutions: &'a Resolutions,
}

/// The room as it is now, or was a moment ago.
///
/// In the turn it must be the current one, with the events that were decided about before in the same write. The reader
/// then has these events too, each with the place that it will have, and their changes of the state log.
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    /// Empty before the create event.
    pub extremities: &'a Extremities,
    /// A position at which the state log has the room's current state.
    pub state_pos: Position,
    /// The hash of the current state.
    pub hash: StateHash,
    /// The number of times that the room changed which of its stored events are rejected.
    pub reject_epoch: i64,
    /// Set while the room's members are not all known.
    pub partial: bool,
}

/// The way on which an event came, on which its place depends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// A server sent it as new. It goes to the end of the line, and its previous events must be known.
    Pushed,
    /// It was fetched because a newer event names it. It goes to the end of the line, before the newer one.
    Fetched,
    /// It was fetched as an auth event or for a state. It gets no place and its state is not asked for.
    Outlier,
    /// It was fetched into a gap, at this place.
    History(TimelinePlace),
}

/// An event of another server that shall be decided about.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub event: Verified,
    pub mode: Mode,
    /// The states after previous events that are missing, as another server told them. Ignored for pushed events: such
    /// an event could become the only forward extremity, and the told state that of the room.
    pub told: BTreeMap<OwnedEventId, StateAt>,
}

impl Incoming {
    /// An event without states that were told.
    pub fn new(event: Verified, mode: Mode) -> Self {
        Self { event, mode, told: BTreeMap::new() }
    }
}

/// New numbers, and the running of resolutions. The numbers that are not used in the end are gaps.
pub trait Ids: Reads + Sync {
    /// A number for an event.
    ///
    /// # Errors
    /// When the numbers ran out.
    fn event(&self) -> Result<EventNid, Self::Error>;

    /// A number for a side.
    ///
    /// # Errors
    /// When the numbers ran out.
    fn side(&self) -> Result<SideNid, Self::Error>;

    /// The number of a key of state, which is made if there is none.
    fn key(&self, event_type: &str, state_key: &str) -> impl Future<Output = Result<KeyNid, Self::Error>> + Send;

    /// Runs a resolution. A server gives a [large](Prepared::is_large) one to a thread that may block.
    fn run(&self, prepared: Prepared) -> impl Future<Output = Result<Resolved, RunError>> + Send {
        std::future::ready(prepared.run())
    }
}

/// Redactions whose target was not known when they came.
pub trait RedactionReader: Reads + Sync {
    /// The accepted redactions that wait for this event, those by power first, and at most some tens of them. A redaction
    /// more than that changes nothing: the first one that applies has redacted the event.
    fn waiting(&self, target: &OwnedEventId)
    -> impl Future<Output = Result<Vec<WaitingRedaction>, Self::Error>> + Send;
}

/// A redaction that waits for its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitingRedaction {
    pub nid: EventNid,
    /// Whether its sender may redact events of all servers.
    pub by_power: bool,
}

/// The result of [`judge`].
#[derive(Debug)]
pub enum Verdict<S = Incoming> {
    /// The event will be stored. [`settle`] says how.
    Judged(Box<Judged<S>>),
    /// The event is stored already, and nothing is left to do.
    Known { nid: EventNid, flags: Flags },
    /// The event can never be stored.
    Dropped(DropReason),
    /// Something is missing that other servers may have. The event is given back.
    Wait { missing: Missing, event: Box<S> },
}

/// Why an event is not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DropReason {
    #[error("the event belongs to another room")]
    OtherRoom,
}

/// The events without which nothing can be decided, in the order in which the event names them. They may be stored in another
/// room: then they never become known in this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    AuthEvents(Vec<OwnedEventId>),
    Prevs(Vec<OwnedEventId>),
}

/// The result of [`settle`].
#[derive(Debug)]
pub enum Settled<S = Incoming> {
    Store(Box<Decision>),
    /// The event was stored since it was judged.
    Known {
        nid: EventNid,
        flags: Flags,
    },
    /// The room got other states since they were resolved. [`foresee`] resolves the new ones outside the turn.
    Moved(Box<Judged<S>>),
    /// The room changed in a way that matters to the verdict: the event must be judged again.
    Stale(Box<S>),
}

/// An event that is stored.
#[derive(Clone, Debug)]
pub enum Stored {
    Received(Box<Verified>),
    /// This server built and signed it.
    Ours(Arc<Pdu>),
}

impl Stored {
    pub fn pdu(&self) -> &Pdu {
        match self {
            Self::Received(event) => event.pdu(),
            Self::Ours(pdu) => pdu,
        }
    }
}

/// All that one event does to its room. It is stored in one write, or not at all.
#[derive(Clone, Debug)]
pub struct Decision {
    pub nid: EventNid,
    pub event: Stored,
    /// Set if the event is stored already, as an outlier. It keeps its number, and its rows are replaced.
    pub was_outlier: bool,
    /// Set for state events.
    pub key: Option<KeyNid>,
    /// The membership that the event says; only for `m.room.member`.
    pub membership: Option<Membership>,
    pub flags: Flags,
    /// The rule that the event breaks, if it is rejected or soft-failed.
    pub refused: Option<AuthRuleError>,
    pub placing: Placing,
    /// The state before the event; empty for an outlier.
    pub before: StateAt,
    /// The known previous events; none for an outlier, which is not part of the graph.
    pub prev: Vec<EventNid>,
    /// The missing events that this one names or covers, and whether it covers them: then they never become forward
    /// extremities.
    pub missing: BTreeMap<OwnedEventId, bool>,
    /// The auth events, with the create event from room version 12 on.
    pub auth: Vec<EventNid>,
    /// One more than the greatest of its auth events; 0 for the create event.
    pub auth_depth: i64,
    /// The events that are no forward extremities any more. Those that were none are ignored.
    pub covers: Vec<EventNid>,
    /// Set if the event becomes a forward extremity.
    pub extremity: Option<Extremity>,
    /// The changes of the room's state, each in another key than the others. `None` removes the key.
    pub changes: Vec<(KeyNid, Option<Held>)>,
    /// The sides that are not stored yet, parents first.
    pub sides: Vec<Arc<Side>>,
    pub redaction: Option<Redaction>,
    /// The redaction that waited for this event and applies to it.
    pub redacted_by: Option<EventNid>,
    /// Set if an operator should look at the resolution. It is obeyed.
    pub alarm: Option<Alarm>,
}

/// The place in the timeline that an event gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// The end of the line: the position of its commit.
    EndOfLine,
    /// The place in a gap.
    Gap(TimelinePlace),
    /// No place, for an event that clients do not read in the timeline.
    Nowhere,
}

/// The effect of an accepted redaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Redaction {
    /// The target is redacted. It may be so already.
    Applies(EventNid),
    /// The target is not known. It is redacted when it is stored, by [`RedactionReader::waiting`].
    Pending { target: OwnedEventId, by_power: bool },
    /// The sender may not redact the target. The target stays as it is.
    Refused(EventNid),
}

/// Why an event could not be decided about. The room stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError<E: std::error::Error + 'static> {
    #[error("the states could not be prepared for resolution")]
    Resolve(#[source] ResolveError<E>),
    #[error("the states could not be resolved")]
    Run(#[source] RunError),
    #[error(transparent)]
    NoneLeft(NoneLeft),
    #[error("the room has several states and no create event")]
    NoCreate,
    #[error("reading the room failed")]
    Read(#[source] E),
}

impl<E: std::error::Error + 'static> From<E> for ReceiveError<E> {
    fn from(error: E) -> Self {
        Self::Read(error)
    }
}
