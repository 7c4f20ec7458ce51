//! The reads of the server in memory, and its new numbers.

use super::*;

impl Reads for Server {
    type Error = NotStored;
}

impl LogReader for Server {
    async fn value(&self, key: KeyNid, at: Position) -> Result<Option<Held>, NotStored> {
        Ok(self.at(at).get(&key).copied())
    }

    async fn between(&self, a: Position, b: Position) -> Result<StateDelta, NotStored> {
        let (a, b) = (self.at(a), self.at(b));
        let keys = a.keys().chain(b.keys()).copied();
        Ok(keys.filter(|key| a.get(key) != b.get(key)).map(|key| (key, a.get(&key).copied())).collect())
    }

    async fn whole(&self, at: Position) -> Result<WholeState, NotStored> {
        Ok(self.at(at).iter().map(|(key, held)| (*key, *held)).collect())
    }

    async fn hash(&self, at: Position) -> Result<StateHash, NotStored> {
        Ok(self.hash_of(self.at(at)))
    }

    async fn position_of(&self, hash: StateHash) -> Result<Option<Position>, NotStored> {
        Ok(Some(self.head()).filter(|head| head.hash == hash).map(|head| head.state_pos))
    }

    async fn side(&self, nid: SideNid) -> Result<Arc<Side>, NotStored> {
        self.sides.get(&nid).cloned().ok_or(NotStored)
    }

    async fn side_with(&self, hash: StateHash) -> Result<Option<Arc<Side>>, NotStored> {
        Ok(self.sides.values().find(|side| side.hash == hash).cloned())
    }
}

impl GraphReader for Server {
    async fn nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<GraphNode>>, NotStored> {
        nids.iter().map(|nid| self.events.get(nid).map(|event| Arc::clone(&event.graph)).ok_or(NotStored)).collect()
    }

    async fn auth_nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<AuthNode>>, NotStored> {
        nids.iter().map(|nid| self.events.get(nid).map(|event| Arc::clone(&event.auth)).ok_or(NotStored)).collect()
    }

    async fn find(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, EventNid>, NotStored> {
        Ok(ids.iter().filter_map(|id| Some((id.clone(), *self.ids.get(id)?))).collect())
    }

    async fn coverers(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, Vec<EventNid>>, NotStored> {
        let of = |id: &OwnedEventId| {
            let covering: Vec<_> =
                self.edges.get(id)?.iter().filter(|(_, covers)| **covers).map(|(nid, _)| *nid).collect();
            (!covering.is_empty()).then(|| (id.clone(), covering))
        };
        Ok(ids.iter().filter_map(of).collect())
    }
}

impl EventReader for Server {
    async fn pdus(&self, nids: &[EventNid]) -> Result<Vec<Arc<Pdu>>, NotStored> {
        nids.iter().map(|nid| self.events.get(nid).map(|event| Arc::clone(&event.pdu)).ok_or(NotStored)).collect()
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, NotStored> {
        Ok(self.keys.lock().unwrap().get(&(event_type.to_owned(), state_key.to_owned())).copied())
    }
}

impl RedactionReader for Server {
    async fn waiting(&self, target: &OwnedEventId) -> Result<Vec<WaitingRedaction>, NotStored> {
        Ok(self.waiting.get(target).cloned().unwrap_or_default())
    }
}

impl Ids for Server {
    fn event(&self) -> Result<EventNid, NotStored> {
        Ok(EventNid(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    fn side(&self) -> Result<SideNid, NotStored> {
        Ok(SideNid(self.next.fetch_add(1, Ordering::Relaxed)))
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<KeyNid, NotStored> {
        let mut keys = self.keys.lock().unwrap();
        let next = KeyNid(keys.len() as i64 + 1);
        Ok(*keys.entry((event_type.to_owned(), state_key.to_owned())).or_insert(next))
    }

    fn run(&self, prepared: Prepared) -> impl Future<Output = Result<Resolved, RunError>> + Send {
        self.runs.fetch_add(1, Ordering::Relaxed);
        std::future::ready(prepared.run())
    }
}
