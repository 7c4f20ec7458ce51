//! The room as its writer sees it: with the events that are queued, and those that were appended just now.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{EventId, UserId};
use sabha_federation::{
    Pdu,
    graph::{Extremities, Extremity},
    receive::HeadView,
    sides::Side,
    standing::StateAt,
    state_log::{Membership, StateEntry},
};

use super::{Pending, RoomWriter, outcome::KeyChange};
use crate::{
    room::{Head, event::StoredEvent},
    store::{Error, EventNid, KeyNid, SideNid},
};

/// A state event as the writer sees it: committed, or built a moment ago.
pub(super) struct Current {
    pub(super) nid: EventNid,
    pub(super) auth_depth: i64,
    pub(super) pdu: Arc<Pdu>,
}

impl RoomWriter<'_> {
    /// The end of the room, with what is queued and what was appended just now. Changes of state of events that were appended
    /// just now have no position yet: `state_pos` is the one before them. Not to be asked between a jump and its commit, as no
    /// other question about the state is.
    pub fn head(&self) -> HeadView<'_> {
        let view = self.room.view();
        let mut changed: BTreeMap<KeyNid, Option<EventNid>> = BTreeMap::new();
        let mut hash = view.state.hash();
        for KeyChange { key, to, .. } in self.changes() {
            let to = to.as_ref().map(|to| to.nid);
            let in_log = || view.state.get(key.nid).map(|entry| entry.event_nid);
            let from = changed.insert(key.nid, to).unwrap_or_else(in_log);
            hash = hash.with(&self.rooms.state_hash_key, key.nid, from, to);
        }
        let Head { state_pos, reject_epoch, .. } = *self.head;
        HeadView { extremities: self.extremities(), state_pos, hash, reject_epoch, partial: false }
    }

    /// The forward extremities that were loaded, and of which only the state before them is known.
    pub(in crate::room) fn extremities_without_state(&self) -> Vec<EventNid> {
        self.head.without_state.clone()
    }

    /// Notes the states after all of these forward extremities.
    pub(in crate::room) fn set_states_after(&mut self, known: &[(EventNid, StateAt)]) {
        let state_after = |nid| known.iter().find(|(known, _)| *known == nid).map(|(_, after)| *after);
        let extremities = self.head.forward_extremities.iter().cloned();
        let extremities: Extremities = extremities
            .map(|extremity| Extremity { after: state_after(extremity.nid).or(extremity.after), ..extremity })
            .collect();
        self.head.forward_extremities = extremities;
        self.head.without_state.clear();
    }

    /// A side that a queued write stores.
    pub fn queued_side(&self, nid: SideNid) -> Option<Arc<Side>> {
        self.room.queued.side(nid)
    }

    /// The current event of a key of the state, including the events that were appended just now.
    pub async fn state(&self, event_type: &str, state_key: &str) -> Result<Option<Arc<Pdu>>, Error> {
        Ok(self.current(event_type, state_key).await?.map(|current| current.pdu))
    }

    pub(super) async fn current(&self, event_type: &str, state_key: &str) -> Result<Option<Current>, Error> {
        let Some(key) = self.rooms.find_key(&self.room, event_type, state_key).await? else { return Ok(None) };
        let nid = match self.pending_change(key) {
            Some(change) => change.to.as_ref().map(|to| to.nid),
            None => self.room.view().state.get(key).map(|entry: StateEntry| entry.event_nid),
        };
        let Some(nid) = nid else { return Ok(None) };
        if let Some(Pending { built, .. }) = self.pending.iter().rev().find(|pending| pending.built.nid == nid) {
            return Ok(Some(Current { nid, auth_depth: built.auth_depth, pdu: Arc::clone(built.pdu()) }));
        }
        let event = self.event(nid).await?;
        Ok(Some(Current { nid: event.nid, auth_depth: event.auth_depth, pdu: Arc::clone(&event.pdu) }))
    }

    /// The changes of the state that this write makes so far, oldest first.
    fn changes(&self) -> impl DoubleEndedIterator<Item = &KeyChange> {
        let restated = self.rework.iter().flat_map(|rework| &rework.changes);
        restated.chain(self.pending.iter().flat_map(|pending| &pending.outcome.changes))
    }

    /// The last change of a key of the state that this write makes.
    fn pending_change(&self, key: KeyNid) -> Option<&KeyChange> {
        self.changes().rev().find(|change| change.key.nid == key)
    }

    /// The membership of a user, including the events that were appended just now.
    pub async fn membership(&self, user_id: &UserId) -> Result<Option<Membership>, Error> {
        let key = self.rooms.find_key(&self.room, "m.room.member", user_id.as_str()).await?;
        let Some(key) = key else { return Ok(None) };
        Ok(match self.pending_change(key) {
            Some(change) => change.to.as_ref().and_then(|to| to.membership),
            None => self.room.view().state.get(key).and_then(|entry| entry.membership),
        })
    }

    /// An event of the room, queued or committed.
    pub(in crate::room) async fn event(&self, nid: EventNid) -> Result<Arc<StoredEvent>, Error> {
        let event = match self.room.queued.get(nid) {
            Some(event) => event,
            None => self.rooms.events.get(&self.room, nid).await?,
        };
        Ok(self.room.queued.as_restated(event))
    }

    /// The event of the room with this ID, queued or committed.
    pub async fn find_event(&self, event_id: &EventId) -> Result<Option<Arc<StoredEvent>>, Error> {
        // The queue first: an event that is committed meanwhile is found among the committed ones afterwards, in the form
        // that its redaction left.
        let event = match self.room.queued.find(event_id) {
            Some(event) => Some(event),
            None => self.rooms.find_event(&self.room, event_id).await?,
        };
        Ok(event.map(|event| self.room.queued.as_restated(event)))
    }

    /// The events of the room's state whose entries are `wanted`, without the events that were appended just now.
    pub async fn list_state(&self, wanted: impl Fn(&StateEntry) -> bool) -> Result<Vec<Arc<StoredEvent>>, Error> {
        let nids: Vec<EventNid> = {
            let view = self.room.view();
            let entries = view.state.entries().iter().map(|(_, entry)| entry);
            entries.filter(|entry| wanted(entry)).map(|entry| entry.event_nid).collect()
        };
        let queued: Vec<_> = nids.iter().map(|nid| self.room.queued.get(*nid)).collect();
        let rest: Vec<_> = nids.iter().zip(&queued).filter(|(_, found)| found.is_none()).map(|(nid, _)| *nid).collect();
        let mut rest = self.rooms.events.list(&self.room, &rest).await?.into_iter();
        Ok(queued.into_iter().filter_map(|event| event.or_else(|| rest.next())).collect())
    }
}
