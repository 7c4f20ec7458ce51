//! The auth events of a room, as far as a resolution has read them.

use std::{collections::BTreeMap, sync::Arc};

use super::ResolveError;
use crate::{
    ids::EventNid,
    model::{AuthNode, GraphReader},
};

/// The number of events that a resolution may look at. It is the limit for auth chains, so a larger room cannot be
/// joined either; each takes about 100 bytes here.
pub const MOST_NODES: usize = 500_000;

/// The nodes that were read, each once.
pub(super) struct AuthGraph<'r, R> {
    pub reader: &'r R,
    nodes: BTreeMap<EventNid, Arc<AuthNode>>,
}

impl<'r, R: GraphReader> AuthGraph<'r, R> {
    pub fn new(reader: &'r R) -> Self {
        Self { reader, nodes: BTreeMap::new() }
    }

    /// Reads those of these events that were not read yet, in one question.
    pub async fn load(&mut self, nids: impl IntoIterator<Item = EventNid>) -> Result<(), ResolveError<R::Error>> {
        let mut unread: Vec<EventNid> = nids.into_iter().filter(|nid| !self.nodes.contains_key(nid)).collect();
        unread.sort_unstable();
        unread.dedup();
        if self.nodes.len() + unread.len() > MOST_NODES {
            return Err(ResolveError::ChainsTooLong(MOST_NODES));
        }
        if !unread.is_empty() {
            let nodes = self.reader.auth_nodes(&unread).await?;
            self.nodes.extend(nodes.into_iter().map(|node| (node.nid, node)));
        }
        Ok(())
    }

    /// The node of an event that was read.
    pub fn node(&self, nid: EventNid) -> Result<&Arc<AuthNode>, ResolveError<R::Error>> {
        self.nodes.get(&nid).ok_or(ResolveError::Missing(nid))
    }

    /// Reads the auth events of these events, which were read.
    pub async fn load_auth_of(
        &mut self,
        nids: impl IntoIterator<Item = EventNid>,
    ) -> Result<(), ResolveError<R::Error>> {
        let mut auth = Vec::new();
        for nid in nids {
            auth.extend_from_slice(&self.node(nid)?.auth);
        }
        self.load(auth).await
    }
}
