//! A room's reads with an event and sides that are decided about and not stored yet.

use std::{collections::BTreeMap, sync::Arc};

use ruma::OwnedEventId;

use crate::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid, Position, SideNid},
    model::{AuthNode, EventReader, GraphNode, GraphReader, LogReader, Reads, RoomReader, WholeState},
    pdu::Pdu,
    sides::{NewState, Side},
    standing::StateAt,
    state_log::StateHash,
};

/// An event that is not stored, or only as an outlier, as the reader gives it once it is stored.
pub(super) struct NewEvent {
    pub graph: Arc<GraphNode>,
    pub auth: Arc<AuthNode>,
    pub pdu: Arc<Pdu>,
}

/// The reads of a room with what is new.
pub(super) struct Overlay<'a, R> {
    reader: &'a R,
    sides: Vec<Arc<Side>>,
    event: Option<NewEvent>,
}

impl<'a, R> Overlay<'a, R> {
    pub fn new(reader: &'a R, sides: Vec<Arc<Side>>) -> Self {
        Self { reader, sides, event: None }
    }

    /// Adds the event that is decided about.
    pub fn show(&mut self, event: NewEvent) {
        self.event = Some(event);
    }

    /// Keeps the side of a new state. Returns the name of the state.
    pub fn keep(&mut self, state: NewState) -> StateAt {
        self.sides.extend(state.side);
        state.at
    }

    /// The sides that are not stored yet, parents first.
    pub fn into_sides(self) -> Vec<Arc<Side>> {
        self.sides
    }

    pub fn sides(&self) -> &[Arc<Side>] {
        &self.sides
    }

    /// The new event, and the other ones of `nids`. `None`: it is not among them.
    fn split(&self, nids: &[EventNid]) -> Option<(&NewEvent, Vec<EventNid>)> {
        let event = self.event.as_ref().filter(|event| nids.contains(&event.graph.nid))?;
        Some((event, nids.iter().copied().filter(|nid| *nid != event.graph.nid).collect()))
    }
}

/// The answer in the order of `nids`, of which all but `nid` are in `others`.
fn join<T>(nids: &[EventNid], nid: EventNid, event: &Arc<T>, others: Vec<Arc<T>>) -> Vec<Arc<T>> {
    let mut others = others.into_iter();
    nids.iter().filter_map(|at| if *at == nid { Some(Arc::clone(event)) } else { others.next() }).collect()
}

impl<R: Reads> Reads for Overlay<'_, R> {
    type Error = R::Error;
}

impl<R: RoomReader> LogReader for Overlay<'_, R> {
    async fn value(&self, key: KeyNid, at: Position) -> Result<Option<Held>, R::Error> {
        self.reader.value(key, at).await
    }

    async fn between(&self, a: Position, b: Position) -> Result<StateDelta, R::Error> {
        self.reader.between(a, b).await
    }

    async fn whole(&self, at: Position) -> Result<WholeState, R::Error> {
        self.reader.whole(at).await
    }

    async fn hash(&self, at: Position) -> Result<StateHash, R::Error> {
        self.reader.hash(at).await
    }

    async fn position_of(&self, hash: StateHash) -> Result<Option<Position>, R::Error> {
        self.reader.position_of(hash).await
    }

    async fn side(&self, nid: SideNid) -> Result<Arc<Side>, R::Error> {
        match self.sides.iter().find(|side| side.nid == nid) {
            Some(side) => Ok(Arc::clone(side)),
            None => self.reader.side(nid).await,
        }
    }

    async fn side_with(&self, hash: StateHash) -> Result<Option<Arc<Side>>, R::Error> {
        match self.sides.iter().find(|side| side.hash == hash) {
            Some(side) => Ok(Some(Arc::clone(side))),
            None => self.reader.side_with(hash).await,
        }
    }
}

impl<R: RoomReader> GraphReader for Overlay<'_, R> {
    async fn nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<GraphNode>>, R::Error> {
        match self.split(nids) {
            Some((event, others)) => Ok(join(nids, event.graph.nid, &event.graph, self.reader.nodes(&others).await?)),
            None => self.reader.nodes(nids).await,
        }
    }

    async fn auth_nodes(&self, nids: &[EventNid]) -> Result<Vec<Arc<AuthNode>>, R::Error> {
        match self.split(nids) {
            Some((event, others)) => {
                Ok(join(nids, event.graph.nid, &event.auth, self.reader.auth_nodes(&others).await?))
            }
            None => self.reader.auth_nodes(nids).await,
        }
    }

    async fn find(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, EventNid>, R::Error> {
        self.reader.find(ids).await
    }

    async fn coverers(&self, ids: &[OwnedEventId]) -> Result<BTreeMap<OwnedEventId, Vec<EventNid>>, R::Error> {
        self.reader.coverers(ids).await
    }
}

impl<R: RoomReader> EventReader for Overlay<'_, R> {
    async fn pdus(&self, nids: &[EventNid]) -> Result<Vec<Arc<Pdu>>, R::Error> {
        match self.split(nids) {
            Some((event, others)) => Ok(join(nids, event.graph.nid, &event.pdu, self.reader.pdus(&others).await?)),
            None => self.reader.pdus(nids).await,
        }
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, R::Error> {
        self.reader.key(event_type, state_key).await
    }
}
