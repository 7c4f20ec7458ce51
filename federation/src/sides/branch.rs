//! New states: the state after an event, and states that were resolved or told by another server.

use std::sync::Arc;

use super::{
    Side,
    diff::{against, differ, hash, side_of, value, values},
    side::hash_after,
};
use crate::{
    held::{Held, StateDelta},
    ids::{Position, SideNid},
    model::{GraphNode, LogReader},
    standing::{Flags, StateAt},
    state_log::{StateHash, StateHashKey},
};

/// A state that has got a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewState {
    pub at: StateAt,
    /// A side that has to be stored. The reader must find it from now on, stored or not: the next events may follow on it.
    pub side: Option<Arc<Side>>,
}

impl NewState {
    /// A state that is in the log or stored already.
    pub fn known(at: StateAt) -> Self {
        Self { at, side: None }
    }
}

/// The state after `event`, which is no outlier: an outlier's state is not known.
///
/// It is the state before it if the event is rejected or no state event; the log's state at its place if it was then the
/// only forward extremity; else the state before it with its own key. `number` is called only if that needs a new side.
///
/// # Errors
/// Fails if the reader or `number` does.
pub async fn after<R: LogReader>(
    reader: &R,
    secret: &StateHashKey,
    event: &GraphNode,
    number: impl FnOnce() -> Result<SideNid, R::Error>,
) -> Result<NewState, R::Error> {
    debug_assert!(!event.flags.contains(Flags::OUTLIER), "the state after an outlier is not known");
    let before = event.before;
    let Some(key) = event.key.filter(|_| !event.flags.contains(Flags::REJECTED)) else {
        return Ok(NewState::known(before));
    };
    let on_line = event.place.filter(|place| place.is_on_line());
    if let Some(place) = on_line.filter(|_| event.flags.contains(Flags::TIP)) {
        return Ok(NewState::known(StateAt::in_log(place.pos)));
    }
    let own = Held { event_nid: event.nid, membership: event.membership };
    let held = value(reader, before, key).await?;
    if !differ(held, Some(own)) {
        return Ok(NewState::known(before));
    }
    let (change, was) = (StateDelta::from_iter([(key, Some(own))]), StateDelta::from_iter([(key, held)]));
    let hash = hash_after(hash(reader, before).await?, &change, &was, secret);
    put_on(reader, before, change, hash, number).await
}

/// A name for `state`, which is a difference to the log's state at a position.
///
/// `near` are states that it may be like: the inputs of its resolution, the state before a child, the current one. If it
/// is a new state, it becomes the next side on the one from which it differs least. `number` is called only if that needs
/// a new side.
///
/// # Errors
/// Fails if the reader or `number` does.
pub async fn store_as<R: LogReader>(
    reader: &R,
    secret: &StateHashKey,
    state: (&StateDelta, Position),
    near: &[StateAt],
    number: impl FnOnce() -> Result<SideNid, R::Error>,
) -> Result<NewState, R::Error> {
    let (delta, base) = state;
    let mut in_base = values(reader, delta.keys(), base).await?;
    let mut nearest = Step::between(StateAt::in_log(base), &StateDelta::default(), delta, &in_base);
    for from in near {
        let other = against(reader, *from, base).await?;
        let unknown: Vec<_> = other.keys().filter(|key| in_base.get(*key).is_none()).collect();
        for (key, held) in values(reader, unknown.into_iter(), base).await?.iter() {
            in_base.set(key, held);
        }
        let step = Step::between(*from, &other, delta, &in_base);
        if step.change.len() < nearest.change.len() {
            nearest = step;
        }
    }
    let Step { from, change, was } = nearest;
    if change.is_empty() {
        return Ok(NewState::known(from));
    }
    let hash = hash_after(hash(reader, from).await?, &change, &was, secret);
    put_on(reader, from, change, hash, number).await
}

/// The way from one state to another.
struct Step {
    from: StateAt,
    change: StateDelta,
    /// The values in `from` of the keys of `change`.
    was: StateDelta,
}

impl Step {
    /// The way from the state `from`, which differs by `from_delta` from a base, to the one that differs by `to_delta`.
    /// `in_base` has the base's value for each key of both.
    fn between(from: StateAt, from_delta: &StateDelta, to_delta: &StateDelta, in_base: &StateDelta) -> Self {
        let (mut change, mut was) = (StateDelta::default(), StateDelta::default());
        let only_from = from_delta.keys().filter(|key| to_delta.get(*key).is_none());
        for key in to_delta.keys().chain(only_from) {
            let in_base = in_base.get(key).flatten();
            let (held, to) = (from_delta.get(key).unwrap_or(in_base), to_delta.get(key).unwrap_or(in_base));
            if differ(held, to) {
                change.set(key, to);
                was.set(key, held);
            }
        }
        Self { from, change, was }
    }
}

/// A name for the state with this hash, which is `from` with `change`: a position of the log or a side that has it already,
/// or the next side on `from`.
async fn put_on<R: LogReader>(
    reader: &R,
    from: StateAt,
    change: StateDelta,
    hash: StateHash,
    number: impl FnOnce() -> Result<SideNid, R::Error>,
) -> Result<NewState, R::Error> {
    if let Some(pos) = reader.position_of(hash).await? {
        return Ok(NewState::known(StateAt::in_log(pos)));
    }
    if let Some(side) = reader.side_with(hash).await? {
        return Ok(NewState::known(side.at()));
    }
    let side = match side_of(reader, from).await? {
        Some(side) => side.followed_by(number()?, change, hash),
        None => Side::first(number()?, from.pos, change, hash),
    };
    Ok(NewState { at: side.at(), side: Some(Arc::new(side)) })
}
