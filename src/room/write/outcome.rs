//! The outcome of an event: all that its checks have decided, and all that follows from it for the room.
//!
//! Promise: [`super::rows`] writes what an outcome says and decides nothing itself. So an event of another server, which
//! may be rejected, come late, or change several keys of the state, is appended in the same way as an event of ours.

use std::sync::Arc;

use ruma::OwnedEventId;
use sabha_federation::{
    Pdu,
    graph::{Extremity, Gap},
    held::Held,
    received::Verified,
    sides::Side,
    standing::{Flags, Standing, StateAt},
    state_log::Membership,
};

use super::queued::Links;
use crate::{
    room::event::{Replaced, StoredEvent},
    store::{
        EventNid, RoomNid, StateKey, TimelinePlace,
        vocabulary::{EventType, User},
    },
};

/// An event that is signed and checked, with the short ids for its rows.
///
/// Promise: it was built and signed here, or it is another server's event whose signatures were verified. Nothing else leads to
/// the row of an event, so the event itself is private.
pub struct Built {
    pub(super) nid: EventNid,
    pdu: Arc<Pdu>,
    pub(super) event_type: Arc<EventType>,
    pub(super) sender: Arc<User>,
    pub(super) key: Option<Arc<StateKey>>,
    pub(super) auth_depth: i64,
    pub(super) prev: Vec<EventNid>,
    pub(super) auth: Vec<EventNid>,
    pub(super) replaces: Option<Replaced>,
    /// The redaction of the event, which was stored before.
    pub(super) redacted_because: Option<Arc<StoredEvent>>,
    /// Set if that redaction has waited for the event, so that nothing says yet that the event is redacted.
    is_redacted_at_once: bool,
}

/// The short ids of an event and of its words.
pub struct Names {
    pub nid: EventNid,
    pub event_type: Arc<EventType>,
    pub sender: Arc<User>,
    /// Set for state events.
    pub key: Option<Arc<StateKey>>,
}

/// The earlier events that an event names.
pub struct Edges {
    /// The stored events of this room among its previous ones.
    pub prev: Vec<EventNid>,
    /// Its auth events; from room version 12 on with the create event, which it does not name.
    pub auth: Vec<EventNid>,
    /// One more than the greatest `auth_depth` of its auth events.
    pub auth_depth: i64,
}

impl Built {
    /// An event that this server has just built and signed. `replaces` is the state event that it replaces in the state
    /// before it.
    pub(super) fn ours(pdu: Arc<Pdu>, names: Names, edges: Edges, replaces: Option<Replaced>) -> Self {
        let Names { nid, event_type, sender, key } = names;
        let Edges { prev, auth, auth_depth } = edges;
        let (redacted_because, is_redacted_at_once) = (None, false);
        Self {
            nid,
            pdu,
            event_type,
            sender,
            key,
            auth_depth,
            prev,
            auth,
            replaces,
            redacted_because,
            is_redacted_at_once,
        }
    }

    /// An event that another server sent. `replaces` is the state event that it replaces in the state before it.
    pub fn received(event: Verified, names: Names, edges: Edges, replaces: Option<Replaced>) -> Self {
        let (pdu, ..) = event.into_parts();
        Self::ours(Arc::new(pdu), names, edges, replaces)
    }

    pub fn pdu(&self) -> &Arc<Pdu> {
        &self.pdu
    }

    /// The depth, as the number that is stored.
    pub(super) fn depth(&self) -> i64 {
        i64::try_from(self.pdu.depth).unwrap_or(i64::MAX)
    }

    /// The event as a forward extremity.
    pub(super) fn extremity(&self, flags: Flags, after: Option<StateAt>) -> Extremity {
        Extremity {
            nid: self.nid,
            event_id: self.pdu.event_id.clone(),
            depth: self.depth(),
            ts: self.pdu.origin_server_ts,
            ours: flags.contains(Flags::OURS),
            after,
        }
    }

    /// Marks the event as a rejected one, for those who read it from memory.
    pub(super) fn reject(&mut self) {
        Arc::make_mut(&mut self.pdu).rejected = true;
    }

    /// Redacts the event by a redaction that has waited for it. `left` is its redacted form.
    pub(super) fn redact(&mut self, left: Arc<Pdu>, because: Arc<StoredEvent>) {
        self.pdu = left;
        self.redacted_because = Some(because);
        self.is_redacted_at_once = true;
    }

    /// The redaction that has waited for the event.
    pub(super) fn redacted_at_once(&self) -> Option<&StoredEvent> {
        self.redacted_because.as_deref().filter(|_| self.is_redacted_at_once)
    }

    /// The event as it is stored, and the stored events that it names.
    pub(super) fn into_stored(self, room: RoomNid, standing: Standing) -> (StoredEvent, Links) {
        let Self { nid, pdu, auth_depth, key, replaces, redacted_because, prev, auth, .. } = self;
        let key = key.map(|key| key.nid);
        let stored = StoredEvent::new(nid, room, standing, auth_depth, key, pdu, replaces, redacted_because);
        (stored, Links { prev, auth, ..Links::default() })
    }

    /// Takes over from the event as it was stored before. A redaction that has been applied stays so, whatever a server sends
    /// again.
    pub(super) fn stay_redacted(&mut self, stored: &StoredEvent) {
        if let Some(because) = &stored.redacted_because {
            self.pdu = Arc::clone(&stored.pdu);
            self.redacted_because = Some(Arc::clone(because));
        }
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
    /// The state after the event, if it becomes a forward extremity. Of the only one it is the room's state, whatever is here.
    pub after: Option<StateAt>,
    pub redacts: Option<Redacts>,
    /// The new sides that the states before it and after it need, and those of the branches beside it.
    pub sides: Vec<Arc<Side>>,
    pub gap: Option<GapChange>,
    /// The previous events that were unknown when it came, and others that it covers in advance.
    pub missing: Vec<MissingEdge>,
    pub pending_redaction: Option<PendingRedaction>,
    /// Set if the event has a row already, because it was an outlier. The row is replaced, and its number stays.
    pub stored_before: bool,
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

impl CurrentEvent {
    pub(super) fn held(&self) -> Held {
        Held { event_nid: self.nid, membership: self.membership }
    }
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

/// A change of the gaps in a room's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapChange {
    /// Events right before this one are missing.
    Opened,
    /// The gap into which the event was fetched, as it is now. `tried_ms` is the time of the last attempt to fill it, in
    /// milliseconds since 1970.
    Filled { gap: Gap, tried_ms: i64 },
}

/// An event that is missing, and that an event which is stored names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingEdge {
    pub missing: OwnedEventId,
    /// Set if the missing event is covered, so that it never becomes a forward extremity.
    pub covers: bool,
}

/// The redaction of an event that is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRedaction {
    pub target: OwnedEventId,
    /// Set if the level of the redaction's sender suffices, whoever sent the target.
    pub by_power: bool,
}

/// An event that is about to be redacted, and its redacted form.
pub struct Redacts {
    pub event: Arc<StoredEvent>,
    pub left: Arc<Pdu>,
}

impl Outcome {
    /// The outcome of an event that changes nothing in its room.
    pub fn only_stored(flags: Flags, placing: Placing, before: StateBefore) -> Self {
        Self {
            flags,
            placing,
            before,
            changes: Vec::new(),
            covers: Vec::new(),
            is_extremity: false,
            after: None,
            redacts: None,
            sides: Vec::new(),
            gap: None,
            missing: Vec::new(),
            pending_redaction: None,
            stored_before: false,
        }
    }

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
            changes: change.into_iter().collect(),
            covers: built.prev.clone(),
            is_extremity: true,
            redacts,
            ..Self::only_stored(Flags::OURS, Placing::EndOfLine, StateBefore::Current)
        }
    }
}
