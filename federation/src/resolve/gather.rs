//! The states key by key: where they agree, and where they do not.

use std::collections::{BTreeMap, BTreeSet};

use super::{Conflict, ResolveError, state_set::StateSet};
use crate::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid, Position},
    model::{LogReader, WholeState},
};

/// The number of keys from which on the whole state of the log is read instead of single keys. A question costs about
/// as much as some hundred entries that are read in a row.
const WHOLE_FROM: usize = 1_000;

/// A value of a conflicted key, and the states that have it.
#[derive(Clone, Debug)]
pub(super) struct ConflictedValue {
    pub held: Held,
    pub states: StateSet,
}

/// The values of a key by their events, each with the states that have it. `None`: they lack the key.
type Values = BTreeMap<Option<EventNid>, (Option<Held>, StateSet)>;

/// The states that are resolved.
pub(super) struct States<'r, R> {
    reader: &'r R,
    base: Position,
    pub count: usize,
    /// The conflicted keys with their values. A state that lacks the key is in none of the sets.
    pub conflicted: BTreeMap<KeyNid, Vec<ConflictedValue>>,
    /// The keys that are not conflicted but differ from the log. All states have the same there.
    pub agreed: StateDelta,
    /// The keys that were read from the log.
    pub in_log: BTreeMap<KeyNid, Option<Held>>,
    whole: Option<WholeState>,
}

/// Compares the states in all keys of their differences.
pub(super) async fn gather<'r, R: LogReader>(
    reader: &'r R,
    conflict: &Conflict<'_>,
) -> Result<States<'r, R>, ResolveError<R::Error>> {
    let count = conflict.states.len();
    if count == 0 {
        return Err(ResolveError::NoStates);
    }
    let mut named: BTreeMap<KeyNid, Values> = BTreeMap::new();
    for (index, state) in conflict.states.iter().enumerate() {
        for (key, held) in state.iter() {
            let values = named.entry(key).or_default();
            let event = held.map(|held| held.event_nid);
            values.entry(event).or_insert_with(|| (held, StateSet::none(count))).1.insert(index);
        }
    }

    let mut states = States {
        reader,
        base: conflict.base,
        count,
        conflicted: BTreeMap::new(),
        agreed: StateDelta::default(),
        in_log: BTreeMap::new(),
        whole: None,
    };
    if named.len() >= WHOLE_FROM {
        states.read_whole().await?;
    }
    for (key, mut values) in named {
        let in_log = states.in_log(key).await?;
        let mut naming = StateSet::none(count);
        for (_, states) in values.values() {
            naming.add(states);
        }
        if !naming.is_full() {
            let event = in_log.map(|held| held.event_nid);
            values.entry(event).or_insert_with(|| (in_log, StateSet::none(count))).1.add(&naming.others(count));
        }
        states.take(key, values.into_values().collect(), in_log);
    }
    Ok(states)
}

impl<R: LogReader> States<'_, R> {
    /// Takes all values of a key: it is agreed on, if it has only one.
    fn take(&mut self, key: KeyNid, values: Vec<(Option<Held>, StateSet)>, in_log: Option<Held>) {
        if let [(held, _)] = values[..] {
            if !same_event(held, in_log) {
                self.agreed.set(key, held);
            }
            return;
        }
        let held = values.into_iter().filter_map(|(held, states)| Some(ConflictedValue { held: held?, states }));
        self.conflicted.insert(key, held.collect());
    }

    /// The events that are values of conflicted keys.
    pub fn conflicted_values(&self) -> impl Iterator<Item = EventNid> {
        self.conflicted.values().flatten().map(|value| value.held.event_nid)
    }

    /// The value of a key in the log.
    pub async fn in_log(&mut self, key: KeyNid) -> Result<Option<Held>, R::Error> {
        if let Some(held) = self.in_log.get(&key) {
            return Ok(*held);
        }
        let held = match &self.whole {
            Some(whole) => whole.binary_search_by_key(&key, |(key, _)| *key).ok().map(|index| whole[index].1),
            None => self.reader.value(key, self.base).await?,
        };
        self.in_log.insert(key, held);
        Ok(held)
    }

    /// The value of a key in all states. `None`: they lack it, or it is conflicted.
    pub async fn unconflicted(&mut self, key: KeyNid) -> Result<Option<Held>, R::Error> {
        if self.conflicted.contains_key(&key) {
            return Ok(None);
        }
        match self.agreed.get(key) {
            Some(held) => Ok(held),
            None => self.in_log(key).await,
        }
    }

    /// The events that all states have, in the order of their numbers.
    pub async fn all_unconflicted(&mut self) -> Result<BTreeSet<EventNid>, R::Error> {
        let whole = self.read_whole().await?;
        let in_log = whole.iter().filter(|(key, _)| self.agreed.get(*key).is_none());
        let unconflicted = in_log.filter(|(key, _)| !self.conflicted.contains_key(key)).map(|(_, held)| *held);
        let agreed = self.agreed.iter().filter_map(|(_, held)| held);
        Ok(unconflicted.chain(agreed).map(|held| held.event_nid).collect())
    }

    async fn read_whole(&mut self) -> Result<WholeState, R::Error> {
        if let Some(whole) = &self.whole {
            return Ok(WholeState::clone(whole));
        }
        let whole = self.reader.whole(self.base).await?;
        self.whole = Some(WholeState::clone(&whole));
        Ok(whole)
    }
}

/// Returns whether two states have the same event for a key, or both have none.
pub(super) fn same_event(a: Option<Held>, b: Option<Held>) -> bool {
    a.map(|held| held.event_nid) == b.map(|held| held.event_nid)
}
