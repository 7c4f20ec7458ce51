//! Questions about any state of a room, in the log or beside it.

use std::sync::Arc;

use super::Side;
use crate::{
    held::{Held, StateDelta},
    ids::{KeyNid, Position},
    model::LogReader,
    standing::StateAt,
    state_log::StateHash,
};

/// The number of keys from which on the whole state is read instead of one key after the other: each key may be a
/// statement (≈ 50 µs), and the state of a large room is decoded in about as long as 64 of them take.
const MANY_KEYS: usize = 64;

/// The difference of a state to the log's state at `base`. It has the keys whose event differs, and no other.
///
/// # Errors
/// Fails if the reader does.
pub async fn against<R: LogReader>(reader: &R, state: StateAt, base: Position) -> Result<StateDelta, R::Error> {
    let Some(side) = side_of(reader, state).await? else {
        return reader.between(state.pos, base).await;
    };
    let mut delta = reader.between(side.base_pos, base).await?;
    let changes = side.against_base();
    let in_base = values(reader, changes.keys(), base).await?;
    for (key, held) in changes.iter() {
        if differ(held, in_base.get(key).flatten()) {
            delta.set(key, held);
        } else {
            delta.remove(key);
        }
    }
    Ok(delta)
}

/// The event that holds `key` in a state. `None`: the state lacks the key.
///
/// # Errors
/// Fails if the reader does.
pub async fn value<R: LogReader>(reader: &R, state: StateAt, key: KeyNid) -> Result<Option<Held>, R::Error> {
    match side_of(reader, state).await? {
        Some(side) => match side.get(key) {
            Some(held) => Ok(held),
            None => reader.value(key, side.base_pos).await,
        },
        None => reader.value(key, state.pos).await,
    }
}

/// The hash of a state.
///
/// # Errors
/// Fails if the reader does.
pub async fn hash<R: LogReader>(reader: &R, state: StateAt) -> Result<StateHash, R::Error> {
    match side_of(reader, state).await? {
        Some(side) => Ok(side.hash),
        None => reader.hash(state.pos).await,
    }
}

/// The side of a state. `None`: it is in the log.
pub(super) async fn side_of<R: LogReader>(reader: &R, state: StateAt) -> Result<Option<Arc<Side>>, R::Error> {
    match state.side {
        Some(nid) => reader.side(nid).await.map(Some),
        None => Ok(None),
    }
}

/// The value that the log's state at `at` has for each of `keys`, set for all of them.
pub(super) async fn values<R: LogReader>(
    reader: &R,
    keys: impl ExactSizeIterator<Item = KeyNid>,
    at: Position,
) -> Result<StateDelta, R::Error> {
    let mut values = StateDelta::default();
    if keys.len() < MANY_KEYS {
        for key in keys {
            values.set(key, reader.value(key, at).await?);
        }
    } else {
        let whole = reader.whole(at).await?;
        for key in keys {
            let found = whole.binary_search_by_key(&key, |(key, _)| *key);
            values.set(key, found.ok().map(|index| whole[index].1));
        }
    }
    Ok(values)
}

/// Returns whether a key has another event in one state than in the other.
pub(super) fn differ(left: Option<Held>, right: Option<Held>) -> bool {
    left.map(|held| held.event_nid) != right.map(|held| held.event_nid)
}
