//! States that become one: the same one, a resolution that was made before, or a new resolution.

use std::{collections::BTreeMap, sync::Arc};

use super::{HeadView, Ids, ReceiveError, RoomFacts};
use crate::{
    held::{Held, StateDelta},
    ids::{KeyNid, Position},
    model::{LogReader, RoomReader},
    resolve::{Conflict, ResolutionKey, prepare},
    sides::{against, hash, value},
    standing::StateAt,
    state_log::StateHash,
};

/// One state from several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Merged {
    /// All were equal to this one.
    One(StateAt),
    /// They were resolved. The difference to the log at the room's current state, with no key that is as there.
    Resolved(StateDelta),
}

/// A state with or without a name, for reading single keys.
#[derive(Clone, Copy)]
pub(super) enum View<'a> {
    At(StateAt),
    /// A difference to the log at this position.
    Differs(&'a StateDelta, Position),
}

impl Merged {
    /// The state, when the room's current one is that of the log at `state_pos`.
    pub fn view(&self, state_pos: Position) -> View<'_> {
        match self {
            Self::One(at) => View::At(*at),
            Self::Resolved(delta) => View::Differs(delta, state_pos),
        }
    }
}

impl View<'_> {
    pub async fn value<R: LogReader>(self, reader: &R, key: KeyNid) -> Result<Option<Held>, R::Error> {
        match self {
            Self::At(at) => value(reader, at, key).await,
            Self::Differs(delta, base) => match delta.get(key) {
                Some(held) => Ok(held),
                None => reader.value(key, base).await,
            },
        }
    }
}

/// States of a room without equal ones, in the order of their hashes.
struct Distinct {
    key: ResolutionKey,
    states: Vec<StateAt>,
}

/// Makes one state from `states`; from none the empty one.
pub(super) async fn merge<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    states: &[StateAt],
    ids: &I,
) -> Result<Merged, ReceiveError<R::Error>> {
    let distinct = distinct(reader, head, states).await?;
    match known(reader, room, head, &distinct).await? {
        Some(merged) => Ok(merged),
        None => resolve(reader, room, head, distinct, ids).await,
    }
}

/// [`merge`], but `None` if the states would have to be resolved.
pub(super) async fn merge_known<R: RoomReader>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    states: &[StateAt],
) -> Result<Option<Merged>, R::Error> {
    let distinct = distinct(reader, head, states).await?;
    known(reader, room, head, &distinct).await
}

async fn distinct<R: LogReader>(reader: &R, head: HeadView<'_>, states: &[StateAt]) -> Result<Distinct, R::Error> {
    let mut distinct: BTreeMap<[u8; 16], StateAt> = BTreeMap::new();
    for state in states {
        distinct.entry(hash(reader, *state).await?.to_bytes()).or_insert(*state);
    }
    let hashes = distinct.keys().copied().map(StateHash::from_bytes);
    Ok(Distinct { key: ResolutionKey::new(hashes, head.reject_epoch), states: distinct.into_values().collect() })
}

async fn known<R: LogReader>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    distinct: &Distinct,
) -> Result<Option<Merged>, R::Error> {
    let first = match distinct.states[..] {
        [] => return Ok(Some(Merged::One(StateAt::EMPTY))),
        [one] => return Ok(Some(Merged::One(one))),
        [first, ..] => first,
    };
    let Some(resolved) = room.resolutions.get(&distinct.key) else { return Ok(None) };
    let delta = against(reader, first, head.state_pos).await?.then(&resolved);
    Ok(Some(Merged::Resolved(without_equal(reader, delta, head.state_pos).await?)))
}

async fn resolve<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    distinct: Distinct,
    ids: &I,
) -> Result<Merged, ReceiveError<R::Error>> {
    let base = head.state_pos;
    let mut deltas = Vec::with_capacity(distinct.states.len());
    for state in &distinct.states {
        deltas.push(against(reader, *state, base).await?);
    }
    let create = room.create.ok_or(ReceiveError::NoCreate)?;
    let conflict = Conflict { base, states: deltas.iter().collect(), rules: room.rules, room_id: room.room_id, create };
    let prepared = prepare(reader, &conflict).await.map_err(ReceiveError::Resolve)?;
    let resolved = ids.run(prepared).await.map_err(ReceiveError::Run)?;
    if let Some(first) = deltas.first() {
        room.resolutions.put(distinct.key, Arc::new(resolved.against(first)));
    }
    Ok(Merged::Resolved(resolved.changes))
}

/// The difference without the keys that are as in the log at `base`.
pub(super) async fn without_equal<R: LogReader>(
    reader: &R,
    mut delta: StateDelta,
    base: Position,
) -> Result<StateDelta, R::Error> {
    let event = |held: Option<Held>| held.map(|held| held.event_nid);
    for (key, held) in delta.clone().iter() {
        if event(held) == event(reader.value(key, base).await?) {
            delta.remove(key);
        }
    }
    Ok(delta)
}
