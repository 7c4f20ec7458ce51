//! A room as the decisions about its events read it: with the events that are queued, because they are in the room already.
//!
//! In the turn of the room everything that was queued before is found, and nothing else comes. Outside it, what is queued
//! meanwhile may be found or not.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId};
use sabha_federation::{
    Pdu,
    held::{Held, StateDelta},
    model::{AuthNode, EventReader, GraphNode, GraphReader, LogReader, Reads, WholeState},
    sides::Side,
    standing::{Flags, Standing},
    state_log::{Lookup, Membership, StateEntry, StateHash},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::head::Seen;
use crate::{
    room::{Room, Rooms, event::membership_of, write::queued::InGraph},
    store::{
        Error, EventNid, KeyNid, Position, SideNid,
        graph::{self, AuthRow, GraphRow},
        ids::unpack,
        states,
    },
};

/// The number of keys from which on a whole state is read instead of single entries.
const WHOLE_FROM: usize = 32;

/// The reads of one room, and the numbers for what is new in it.
#[derive(Clone, Copy)]
pub struct RoomReads<'a> {
    rooms: &'a Rooms,
    room: &'a Room,
}

impl Rooms {
    /// The reads of a room.
    pub fn reads<'a>(&'a self, room: &'a Room) -> RoomReads<'a> {
        RoomReads { rooms: self, room }
    }
}

impl<'a> RoomReads<'a> {
    pub(super) fn rooms(&self) -> &'a Rooms {
        self.rooms
    }

    pub(super) fn room(&self) -> &'a Room {
        self.room
    }

    /// The queued standings of stored events. Ask for them before the rows: one that is committed in between would be missed.
    fn restated(&self, nids: &[EventNid]) -> HashMap<EventNid, Standing> {
        nids.iter().filter_map(|nid| Some((*nid, self.room.queued.restated(*nid)?))).collect()
    }

    /// The event of a key in the state of the room as it was seen.
    pub(super) async fn current(
        &self,
        event_type: &str,
        state_key: &str,
        seen: &Seen,
    ) -> Result<Option<EventNid>, Error> {
        let Some(key) = self.key(event_type, state_key).await? else { return Ok(None) };
        Ok(self.value(key, seen.state_pos).await?.map(|held| held.event_nid))
    }

    /// Waits until the state log up to `at` is in the database, for a reader who has not found it in memory. The changes that
    /// are queued are in memory only.
    async fn stored(&self, at: Position) -> Result<(), Error> {
        if at <= self.rooms.db.committer().published() {
            return Ok(());
        }
        self.rooms.barrier(self.room)?.wait().await.map(drop)
    }
}

impl Reads for RoomReads<'_> {
    type Error = Error;
}

impl LogReader for RoomReads<'_> {
    async fn value(&self, key: KeyNid, at: Position) -> Result<Option<Held>, Error> {
        let in_memory = self.room.view().state.get_at(key, at);
        Ok(match in_memory {
            Lookup::Present(entry) => Some(entry.into()),
            Lookup::Absent => None,
            Lookup::NotInMemory => {
                self.stored(at).await?;
                self.rooms.entry_at(self.room, key, at).await?.map(Held::from)
            }
        })
    }

    async fn between(&self, a: Position, b: Position) -> Result<StateDelta, Error> {
        let in_memory = self.room.view().state.changes_between(a.min(b), a.max(b));
        let changed = match in_memory {
            Some(changed) => changed,
            None => {
                self.stored(a.max(b)).await?;
                self.rooms.state_changes(self.room, a.min(b), a.max(b)).await?
            }
        };
        if a >= b {
            return Ok(changed.into_iter().map(|(key, entry)| (key, entry.map(Held::from))).collect());
        }
        let keys = changed.into_iter().map(|(key, _)| key);
        if keys.len() < WHOLE_FROM {
            let mut delta = StateDelta::default();
            for key in keys {
                delta.set(key, self.value(key, a).await?);
            }
            return Ok(delta);
        }
        let whole = self.rooms.state_at(self.room, a).await?;
        let held = |key: &KeyNid| whole.binary_search_by_key(key, |(key, _)| *key).ok().map(|at| whole[at].1.into());
        Ok(keys.map(|key| (key, held(&key))).collect())
    }

    async fn whole(&self, at: Position) -> Result<WholeState, Error> {
        let in_memory = self.room.view().state.state_at(at);
        let state = match in_memory {
            Some(state) => state,
            None => {
                self.stored(at).await?;
                self.rooms.state_at(self.room, at).await?
            }
        };
        Ok(state.into_iter().map(|(key, entry): (KeyNid, StateEntry)| (key, Held::from(entry))).collect())
    }

    async fn hash(&self, at: Position) -> Result<StateHash, Error> {
        let in_memory = self.room.view().state.hash_at(at);
        match in_memory {
            Some(hash) => Ok(hash),
            None => {
                self.stored(at).await?;
                Ok(StateHash::of(&self.rooms.state_hash_key, &self.rooms.state_at(self.room, at).await?))
            }
        }
    }

    async fn position_of(&self, hash: StateHash) -> Result<Option<Position>, Error> {
        let in_memory = self.room.view().state.position_of(hash);
        if in_memory.is_some() {
            return Ok(in_memory);
        }
        let mut reader = self.rooms.db.read().await?;
        states::checkpoint_with(&mut reader.conn(), self.room.nid, &hash.to_bytes()).await
    }

    async fn side(&self, nid: SideNid) -> Result<Arc<Side>, Error> {
        match self.room.queued.side(nid) {
            Some(side) => Ok(side),
            None => self.rooms.side(self.room, nid).await,
        }
    }

    async fn side_with(&self, hash: StateHash) -> Result<Option<Arc<Side>>, Error> {
        match self.room.queued.side_with(hash) {
            Some(side) => Ok(Some(side)),
            None => self.rooms.side_with(self.room, hash).await,
        }
    }
}

impl GraphReader for RoomReads<'_> {
    async fn nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<GraphNode>>, Error> {
        let mut found: HashMap<EventNid, Arc<GraphNode>> = HashMap::with_capacity(nids.len());
        let queued = nids.iter().filter_map(|nid| self.room.queued.in_graph(*nid));
        found.extend(queued.map(|event| (event.event.nid, Arc::new(queued_node(event)))));
        let stored = missing(nids, &found);
        if !stored.is_empty() {
            let restated = self.restated(&stored);
            let mut reader = self.rooms.db.read().await?;
            for row in graph::graph_nodes(&mut reader.conn(), self.room.nid, &stored).await? {
                let mut node = stored_node(row)?;
                if let Some(Standing { flags, place, before }) = restated.get(&node.nid) {
                    (node.flags, node.place, node.before) = (*flags, *place, *before);
                }
                found.insert(node.nid, Arc::new(node));
            }
        }
        in_order(nids, &found)
    }

    async fn auth_nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<AuthNode>>, Error> {
        let mut found: HashMap<EventNid, Arc<AuthNode>> = HashMap::with_capacity(nids.len());
        let queued = nids.iter().filter_map(|nid| self.room.queued.in_graph(*nid));
        found.extend(queued.map(|event| (event.event.nid, Arc::new(queued_auth_node(event)))));
        let stored = missing(nids, &found);
        if !stored.is_empty() {
            let restated = self.restated(&stored);
            let mut reader = self.rooms.db.read().await?;
            for row in graph::auth_nodes(&mut reader.conn(), self.room.nid, &stored).await? {
                let mut node = stored_auth_node(&row)?;
                if let Some(standing) = restated.get(&node.nid) {
                    node.flags = standing.flags;
                }
                found.insert(node.nid, Arc::new(node));
            }
        }
        in_order(nids, &found)
    }

    async fn find(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, EventNid>, Error> {
        // Committed ones last: an event that is committed meanwhile is found there.
        let mut found: BTreeMap<OwnedEventId, EventNid> = ids
            .iter()
            .filter_map(|event_id| self.room.queued.find(event_id).map(|event| (event_id.clone(), event.nid)))
            .collect();
        let rest: Vec<&str> = ids.iter().filter(|id| !found.contains_key(*id)).map(|id| id.as_str()).collect();
        if !rest.is_empty() {
            let mut reader = self.rooms.db.read().await?;
            for (event_id, nid) in graph::events_by_id(&mut reader.conn(), self.room.nid, &rest).await? {
                found.insert(event_id_of(&event_id)?, nid);
            }
        }
        Ok(found)
    }

    async fn coverers(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, Vec<EventNid>>, Error> {
        let mut found: BTreeMap<OwnedEventId, Vec<EventNid>> = BTreeMap::new();
        for event_id in ids {
            let queued = self.room.queued.coverers(event_id);
            if !queued.is_empty() {
                found.insert(event_id.clone(), queued);
            }
        }
        let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let mut reader = self.rooms.db.read().await?;
        for (event_id, nid) in graph::coverers(&mut reader.conn(), self.room.nid, &ids).await? {
            let of_event = found.entry(event_id_of(&event_id)?).or_default();
            // It may have been committed a moment ago.
            if !of_event.contains(&nid) {
                of_event.push(nid);
            }
        }
        Ok(found)
    }
}

impl EventReader for RoomReads<'_> {
    async fn pdus(&self, nids: &[EventNid]) -> Result<Vec<Arc<Pdu>>, Error> {
        let queued: Vec<_> = nids.iter().map(|nid| self.room.queued.get(*nid)).collect();
        let rest: Vec<_> = nids.iter().zip(&queued).filter(|(_, found)| found.is_none()).map(|(nid, _)| *nid).collect();
        let mut rest = self.rooms.events.list(self.room, &rest).await?.into_iter();
        let events = queued.into_iter().filter_map(|event| event.or_else(|| rest.next()));
        Ok(events.map(|event| Arc::clone(&self.room.queued.as_restated(event).pdu)).collect())
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, Error> {
        self.rooms.find_key(self.room, event_type, state_key).await
    }
}

/// The numbers that are not found yet, each once.
fn missing<N>(nids: &[EventNid], found: &HashMap<EventNid, Arc<N>>) -> Vec<EventNid> {
    let mut missing: Vec<_> = nids.iter().filter(|nid| !found.contains_key(nid)).copied().collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// The nodes in the order of their numbers.
fn in_order<N>(nids: &[EventNid], found: &HashMap<EventNid, Arc<N>>) -> Result<Vec<Arc<N>>, Error> {
    let node = |nid: &EventNid| {
        let node = found.get(nid).cloned();
        node.ok_or_else(|| Error::damaged("event", format!("{} is missing in its room", nid.0)))
    };
    nids.iter().map(node).collect()
}

fn queued_node(InGraph { event, links }: InGraph) -> GraphNode {
    GraphNode {
        nid: event.nid,
        event_id: event.event_id().to_owned(),
        flags: event.standing.flags,
        place: event.standing.place,
        before: event.standing.before,
        key: event.key,
        membership: (event.pdu.event_type == "m.room.member").then(|| membership_of(&event.pdu.content)).flatten(),
        depth: i64::try_from(event.pdu.depth).unwrap_or(i64::MAX),
        ts: event.pdu.origin_server_ts,
        prev: links.prev.clone(),
    }
}

fn stored_node(row: GraphRow) -> Result<GraphNode, Error> {
    let standing = row.standing();
    Ok(GraphNode {
        nid: EventNid(row.event_nid),
        event_id: event_id_of(&row.event_id)?,
        flags: standing.flags,
        place: standing.place,
        before: standing.before,
        key: row.key_nid.map(KeyNid),
        membership: row.json.as_deref().map(membership_in).transpose()?.flatten(),
        depth: row.depth,
        ts: row.ts,
        prev: unpack(&row.prev)?,
    })
}

fn queued_auth_node(InGraph { event, links }: InGraph) -> AuthNode {
    AuthNode {
        nid: event.nid,
        auth: links.auth.as_slice().into(),
        auth_depth: event.auth_depth,
        flags: event.standing.flags,
        key: event.key,
    }
}

fn stored_auth_node(row: &AuthRow) -> Result<AuthNode, Error> {
    Ok(AuthNode {
        nid: EventNid(row.event_nid),
        auth: unpack(&row.auth)?.into(),
        auth_depth: row.auth_depth,
        flags: Flags::from_bits(row.flags),
        key: row.key_nid.map(KeyNid),
    })
}

/// The membership that a stored state event says, if it is one of a member.
fn membership_in(json: &str) -> Result<Option<Membership>, Error> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow, rename = "type")]
        event_type: Cow<'a, str>,
        #[serde(borrow)]
        content: &'a RawValue,
    }
    let wire: Wire<'_> = serde_json::from_str(json).map_err(|error| Error::damaged("event", error))?;
    Ok((wire.event_type == "m.room.member").then(|| membership_of(wire.content)).flatten())
}

fn event_id_of(text: &str) -> Result<OwnedEventId, Error> {
    EventId::parse(text).map_err(|error| Error::damaged("event ID", error))
}
