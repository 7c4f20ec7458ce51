//! The outcome of an event: all that its checks have decided, and all that follows from it for the room.
//!
//! Promise: [`super::rows`] writes what an outcome says and decides nothing itself. So an event of another server, which
//! may be rejected, come late, or change several keys of the state, is appended in the same way as an event of ours.

use std::sync::Arc;

use sabha_federation::{
    Pdu,
    standing::{Flags, StateAt},
    state_log::Membership,
};

use crate::{
    room::event::{Replaced, StoredEvent},
    store::{
        EventNid, StateKey, TimelinePlace,
        vocabulary::{EventType, User},
    },
};

/// An event that is signed and checked, with the short ids for its rows.
pub struct Built {
    pub nid: EventNid,
    pub pdu: Arc<Pdu>,
    pub event_type: Arc<EventType>,
    pub sender: Arc<User>,
    /// Set for state events.
    pub key: Option<Arc<StateKey>>,
    /// One more than the greatest `auth_depth` of its auth events.
    pub auth_depth: i64,
    pub prev: Vec<EventNid>,
    pub auth: Vec<EventNid>,
    /// The state event that it replaces in the state before it.
    pub replaces: Option<Replaced>,
}

impl Built {
    /// The depth, as the number that is stored.
    pub(super) fn depth(&self) -> i64 {
        i64::try_from(self.pdu.depth).unwrap_or(i64::MAX)
    }
}

/// The decisions about one event.
pub struct Outcome {
    pub flags: Flags,
    pub placing: Placing,
    pub before: StateBefore,
    /// The changes of the room's resolved state, at most one for each key.
    pub changes: Vec<KeyChange>,
    /// The forward extremities that this event removes; no others go. Ids that are none are ignored.
    pub covers: Vec<EventNid>,
    /// Set if the event becomes a forward extremity.
    pub is_extremity: bool,
    pub redacts: Option<Redacts>,
}

/// The place in the timeline that an event gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placing {
    /// The end of the line: the position of its commit.
    EndOfLine,
    /// The place in a gap, for an event of history.
    Gap(TimelinePlace),
    /// No place, for an event that clients do not read in the timeline.
    Nowhere,
}

/// The state before an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateBefore {
    /// The room's current state, as it is when the event's turn comes.
    Current,
    Known(StateAt),
}

/// A change of one key of the room's state.
pub struct KeyChange {
    pub key: Arc<StateKey>,
    /// The new event; `None` removes the key.
    pub to: Option<CurrentEvent>,
    /// Set if the key is the membership of a user.
    pub member: Option<ChangedMember>,
}

/// The current event of a key of the state.
pub struct CurrentEvent {
    pub nid: EventNid,
    pub pdu: Arc<Pdu>,
    /// Set for `m.room.member`.
    pub membership: Option<Membership>,
}

/// A user whose membership changes.
pub enum ChangedMember {
    Local(LocalMember),
    /// A user of another server.
    Remote(Arc<User>),
}

/// A local user whose membership changes.
pub struct LocalMember {
    pub user: Arc<User>,
    /// The room as it is shown to an invited or knocking user, as a JSON array.
    pub invite_state: Option<String>,
}

/// An event that is about to be redacted, and its redacted form.
pub struct Redacts {
    pub event: Arc<StoredEvent>,
    pub left: Arc<Pdu>,
}

impl Outcome {
    /// The outcome of a local event, which is built on the current state and was allowed by it. It covers all events
    /// that it names, and changes the one key that it sets.
    pub fn of_local(
        built: &Built,
        membership: Option<Membership>,
        member: Option<ChangedMember>,
        redacts: Option<Redacts>,
    ) -> Self {
        let change = built.key.as_ref().map(|key| {
            let now = CurrentEvent { nid: built.nid, pdu: Arc::clone(&built.pdu), membership };
            KeyChange { key: Arc::clone(key), to: Some(now), member }
        });
        Self {
            flags: Flags::OURS,
            placing: Placing::EndOfLine,
            before: StateBefore::Current,
            changes: change.into_iter().collect(),
            covers: built.prev.clone(),
            is_extremity: true,
            redacts,
        }
    }
}
