//! Auth chains: all events that an event rests on by its auth events, and theirs.
//!
//! There is no index of them, because other servers decide how large it would become. A chain is walked when it is asked for.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use ruma::{OwnedEventId, room_version_rules::RoomVersionRules};

use crate::{
    ids::EventNid,
    model::{AuthNode, GraphReader},
    pdu::{Pdu, create_event_id_of},
};

/// The largest auth chain that the server works with, in events: about 30 MB while it is walked. An event with
/// a longer one waits, because other servers could make every walk as long as they like.
pub const MAX_AUTH_CHAIN: usize = 500_000;

/// The number of events that one question to the reader asks for. A reader over a database splits it further.
const NODES_AT_ONCE: usize = 1_000;

/// Why there is no auth chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError<E: std::error::Error + 'static> {
    #[error("the auth chain has more than {most} events")]
    TooLong { most: usize },
    #[error("could not read auth events")]
    Read(#[source] E),
}

/// The auth chain of these events: exactly their auth events, the auth events of those, and so on. An event of `of` is in
/// it only if another one rests on it. Each event comes after its auth events.
///
/// # Errors
/// [`ChainError::TooLong`] if the chain has more than `most` events; or when reading fails.
pub async fn auth_chain<R: GraphReader>(
    reader: &R,
    of: &[EventNid],
    most: usize,
) -> Result<Vec<EventNid>, ChainError<R::Error>> {
    let of: BTreeSet<_> = of.iter().copied().collect();
    let mut next: Vec<EventNid> = of.into_iter().collect();
    let mut depths: BTreeMap<EventNid, i64> = BTreeMap::new();
    while !next.is_empty() {
        let now = next.split_off(next.len().saturating_sub(NODES_AT_ONCE));
        for node in reader.auth_nodes(&now).await.map_err(ChainError::Read)? {
            if let Some(depth) = depths.get_mut(&node.nid) {
                *depth = node.auth_depth;
            }
            for &auth in &node.auth {
                if let Entry::Vacant(entry) = depths.entry(auth) {
                    entry.insert(0);
                    next.push(auth);
                }
            }
            if depths.len() > most {
                return Err(ChainError::TooLong { most });
            }
        }
    }
    let mut chain: Vec<_> = depths.into_iter().map(|(nid, depth)| (depth, nid)).collect();
    chain.sort_unstable();
    Ok(chain.into_iter().map(|(_, nid)| nid).collect())
}

/// The auth depth of an event with these auth events: one more than the greatest of theirs; 0 for the create event.
pub fn auth_depth<'a>(auth: impl IntoIterator<Item = &'a AuthNode>) -> i64 {
    auth.into_iter().map(|node| node.auth_depth.saturating_add(1)).max().unwrap_or(0)
}

/// The IDs of an event's auth events: those that it names, and from room version 12 on the create event too, which it
/// does not name.
pub fn auth_event_ids(rules: &RoomVersionRules, pdu: &Pdu) -> Vec<OwnedEventId> {
    let implied = create_event_id_of(rules, &pdu.room_id)
        .filter(|create| *create != pdu.event_id && !pdu.auth_events.contains(create));
    pdu.auth_events.iter().cloned().chain(implied).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::test_room::{TestRoom, alice, draft};

    #[test]
    fn the_create_event_is_among_the_auth_events_in_every_version() {
        for room in TestRoom::of_every_version() {
            let create = &room.state[&("m.room.create".to_owned(), String::new())];
            assert_eq!(auth_event_ids(&room.rules, create), [] as [OwnedEventId; 0], "{}", room.version);
            let message = room.build(alice(), draft("m.room.message", None, json!({}))).unwrap();
            let ids = auth_event_ids(&room.rules, &message);
            assert_eq!(ids.iter().filter(|id| **id == create.event_id).count(), 1, "{}", room.version);
            assert!(message.auth_events.iter().all(|id| ids.contains(id)));
            assert!(ids.len() <= message.auth_events.len() + 1);
        }
    }

    #[test]
    fn an_event_is_deeper_than_all_its_auth_events() {
        let node = |auth_depth| AuthNode {
            nid: EventNid(1),
            auth: Box::default(),
            auth_depth,
            flags: crate::standing::Flags::NONE,
            key: None,
        };
        assert_eq!(auth_depth(&[]), 0);
        assert_eq!(auth_depth(&[node(0)]), 1);
        assert_eq!(auth_depth(&[node(3), node(5), node(0)]), 6);
        assert_eq!(auth_depth(&[node(i64::MAX)]), i64::MAX);
    }
}
