//! The reads of a room in memory, whose futures are ready at once, and its new numbers.

use std::{collections::BTreeMap, sync::Arc};

use ruma::OwnedEventId;

use super::{EventRow, Memory};
use crate::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid, Position, SideNid},
    model::{AuthNode, EventReader, GraphNode, GraphReader, LogReader, Reads, WholeState},
    pdu::Pdu,
    receive::{Ids, RedactionReader, WaitingRedaction},
    sides::Side,
    state_log::{LogRow, Lookup, StateEntry, StateHash},
};

/// A number that nothing has.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum NotStored {
    #[error("event {0:?} is not stored")]
    Event(EventNid),
    #[error("side {0:?} is not stored")]
    Side(SideNid),
}

impl Memory {
    fn row(&self, nid: EventNid) -> Result<&EventRow, NotStored> {
        self.rows.events.get(&nid).ok_or(NotStored::Event(nid))
    }

    /// The log's whole state at a position, made of all changes up to there if memory does not reach back that far.
    fn entries_at(&self, at: Position) -> Vec<(KeyNid, StateEntry)> {
        self.log.state_at(at).unwrap_or_else(|| {
            let mut entries = BTreeMap::new();
            for row in self.rows.log.iter().take_while(|row| row.pos <= at) {
                let LogRow { key, pos, membership, .. } = *row;
                entries.insert(key, row.event_nid.map(|event_nid| StateEntry { event_nid, pos, membership }));
            }
            entries.into_iter().filter_map(|(key, entry)| Some((key, entry?))).collect()
        })
    }

    pub fn whole_at(&self, at: Position) -> Vec<(KeyNid, Held)> {
        self.entries_at(at).into_iter().map(|(key, entry)| (key, Held::from(entry))).collect()
    }
}

impl Reads for Memory {
    type Error = NotStored;
}

impl LogReader for Memory {
    async fn value(&self, key: KeyNid, at: Position) -> Result<Option<Held>, NotStored> {
        Ok(match self.log.get_at(key, at) {
            Lookup::Present(entry) => Some(Held::from(entry)),
            Lookup::Absent => None,
            Lookup::NotInMemory => {
                let last = self.rows.log.iter().rev().find(|row| row.key == key && row.pos <= at);
                last.and_then(|row| Some(Held { event_nid: row.event_nid?, membership: row.membership }))
            }
        })
    }

    async fn between(&self, a: Position, b: Position) -> Result<StateDelta, NotStored> {
        let (at_a, at_b): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (self.whole_at(a).into_iter().collect(), self.whole_at(b).into_iter().collect());
        let keys = at_a.keys().chain(at_b.keys().filter(|key| !at_a.contains_key(key)));
        let event = |held: Option<&Held>| held.map(|held| held.event_nid);
        let differ = keys.filter(|key| event(at_a.get(key)) != event(at_b.get(key)));
        Ok(differ.map(|key| (*key, at_a.get(key).copied())).collect())
    }

    async fn whole(&self, at: Position) -> Result<WholeState, NotStored> {
        Ok(self.whole_at(at).into())
    }

    async fn hash(&self, at: Position) -> Result<StateHash, NotStored> {
        Ok(self.log.hash_at(at).unwrap_or_else(|| StateHash::of(&self.secret, &self.entries_at(at))))
    }

    async fn position_of(&self, hash: StateHash) -> Result<Option<Position>, NotStored> {
        let of_checkpoint = || self.rows.checkpoints.iter().find(|(_, (other, _))| *other == hash);
        Ok(self.log.position_of(hash).or_else(|| of_checkpoint().map(|(pos, _)| *pos)))
    }

    async fn side(&self, nid: SideNid) -> Result<Arc<Side>, NotStored> {
        self.sides.get(&nid).cloned().ok_or(NotStored::Side(nid))
    }

    async fn side_with(&self, hash: StateHash) -> Result<Option<Arc<Side>>, NotStored> {
        Ok(self.sides.values().find(|side| side.hash == hash).cloned())
    }
}

impl GraphReader for Memory {
    async fn nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<GraphNode>>, NotStored> {
        let node = |nid: &EventNid| {
            let row = self.row(*nid)?;
            Ok(Arc::new(GraphNode {
                nid: *nid,
                event_id: row.pdu.event_id.clone(),
                flags: row.flags,
                place: row.place,
                before: row.before,
                key: row.key,
                membership: row.membership,
                depth: i64::try_from(row.pdu.depth).unwrap_or(i64::MAX),
                ts: row.pdu.origin_server_ts,
                prev: row.pdu.prev_events.iter().filter_map(|id| self.rows.ids.get(id).copied()).collect(),
            }))
        };
        nids.iter().map(node).collect()
    }

    async fn auth_nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<AuthNode>>, NotStored> {
        let node = |nid: &EventNid| {
            let EventRow { auth, auth_depth, flags, key, .. } = self.row(*nid)?;
            Ok(Arc::new(AuthNode { nid: *nid, auth: auth.clone(), auth_depth: *auth_depth, flags: *flags, key: *key }))
        };
        nids.iter().map(node).collect()
    }

    async fn find(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, EventNid>, NotStored> {
        Ok(ids.iter().filter_map(|id| Some((id.clone(), *self.rows.ids.get(id)?))).collect())
    }

    async fn coverers(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, Vec<EventNid>>, NotStored> {
        let of = |id: &OwnedEventId| {
            let children = self.rows.edges.get(id)?;
            let covering: Vec<_> = children.iter().filter(|(_, covers)| **covers).map(|(nid, _)| *nid).collect();
            (!covering.is_empty()).then(|| (id.clone(), covering))
        };
        Ok(ids.iter().filter_map(of).collect())
    }
}

impl EventReader for Memory {
    async fn pdus(&self, nids: &[EventNid]) -> Result<Vec<Arc<Pdu>>, NotStored> {
        nids.iter().map(|nid| Ok(Arc::clone(&self.row(*nid)?.pdu))).collect()
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, NotStored> {
        Ok(self.rows.keys.get(&(event_type.to_owned(), state_key.to_owned())).copied())
    }
}

impl RedactionReader for Memory {
    async fn waiting(&self, target: &OwnedEventId) -> Result<Vec<WaitingRedaction>, NotStored> {
        Ok(self.rows.redactions.get(target).cloned().unwrap_or_default())
    }
}

impl Ids for Memory {
    fn event(&self) -> Result<EventNid, NotStored> {
        Ok(EventNid(self.next_number()))
    }

    fn side(&self) -> Result<SideNid, NotStored> {
        Ok(SideNid(self.next_number()))
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<KeyNid, NotStored> {
        let mut keys = self.keys.lock().expect("nothing panics under the lock");
        let name = (event_type.to_owned(), state_key.to_owned());
        Ok(*keys.entry(name).or_insert_with(|| KeyNid(self.next_number())))
    }
}
