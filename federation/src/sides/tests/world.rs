//! A room's state log and sides in memory, with each state whole beside them.
//!
//! The reader is made of the parts that a reader over a database is made of: the log in memory, rows, jumps and sides. The
//! whole states are only compared with.

use std::{collections::BTreeMap, sync::Arc};

use ruma::owned_event_id;

use super::super::{NewState, Side, after, store_as};
use crate::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid, Position, SideNid, TimelinePlace},
    model::{GraphNode, LogReader, Reads, WholeState},
    standing::{Flags, StateAt},
    state_log::{Jump, LogRow, Lookup, Membership, StateHash, StateHashKey, StateLog, merge},
    test_ready::ready,
};

pub(super) type State = BTreeMap<KeyNid, Held>;

/// Keys below this are members, the others are not.
const MEMBER_KEYS: i64 = 4;

pub(super) fn secret() -> StateHashKey {
    StateHashKey::new(&[7; 32])
}

pub(super) fn held(key: KeyNid, event_nid: EventNid) -> Held {
    let membership = [Membership::Join, Membership::Leave, Membership::Ban][event_nid.0.unsigned_abs() as usize % 3];
    Held { event_nid, membership: (key.0 < MEMBER_KEYS).then_some(membership) }
}

pub(super) fn hash_of(state: &State) -> StateHash {
    state.iter().fold(StateHash::EMPTY, |hash, (key, held)| hash.with(&secret(), *key, None, Some(held.event_nid)))
}

/// The difference of `state` to `base`, by brute force.
pub(super) fn difference(state: &State, base: &State) -> StateDelta {
    let keys = state.keys().chain(base.keys()).copied();
    keys.filter(|key| state.get(key) != base.get(key)).map(|key| (key, state.get(&key).copied())).collect()
}

#[derive(Clone, Debug)]
pub(super) struct World {
    pub log: StateLog,
    rows: Vec<LogRow>,
    jumps: Vec<Jump>,
    pub sides: BTreeMap<SideNid, Arc<Side>>,
    /// Whether a side with an equal hash is found.
    pub shares_sides: bool,
    states_in_log: BTreeMap<Position, State>,
    states_of_sides: BTreeMap<SideNid, State>,
}

#[derive(Debug, thiserror::Error)]
#[error("side {} is not stored", .0.0)]
pub(super) struct NoSide(SideNid);

impl World {
    pub fn new() -> Self {
        Self {
            log: StateLog::new(secret(), Position::BEFORE_ALL),
            rows: Vec::new(),
            jumps: Vec::new(),
            sides: BTreeMap::new(),
            shares_sides: true,
            states_in_log: BTreeMap::from([(Position::BEFORE_ALL, State::new())]),
            states_of_sides: BTreeMap::new(),
        }
    }

    /// Changes a key in the log, at the next position.
    pub fn set(&mut self, key: KeyNid, event_nid: Option<EventNid>) -> Position {
        let pos = Position(self.log.latest().0 + 1);
        let held = event_nid.map(|event_nid| held(key, event_nid));
        let prev_event_nid = self.log.get(key).map(|entry| entry.event_nid);
        let membership = held.and_then(|held| held.membership);
        self.rows.push(LogRow { key, pos, event_nid, membership, prev_event_nid });
        self.log.apply(self.log.change(key, pos, event_nid, membership));

        let mut state = self.state(StateAt::in_log(pos)).clone();
        match held {
            Some(held) => drop(state.insert(key, held)),
            None => drop(state.remove(&key)),
        }
        self.states_in_log.insert(pos, state);
        pos
    }

    /// Replaces the whole state of the log, at the next position.
    pub fn jump(&mut self, state: &State) -> Position {
        let pos = Position(self.log.latest().0 + 1);
        let before = self.log.entries().to_vec();
        self.log = self.log.jump(pos, state.iter().map(|(key, held)| (*key, *held)).collect());
        self.jumps.push(Jump { pos, before, after: self.log.entries().to_vec() });
        self.states_in_log.insert(pos, state.clone());
        pos
    }

    /// The whole state with this name.
    pub fn state(&self, at: StateAt) -> &State {
        match at.side {
            Some(nid) => &self.states_of_sides[&nid],
            None => self.states_in_log.range(..=at.pos).next_back().expect("there is a first state").1,
        }
    }

    /// The state after an event, which is stored, and expected to be `state`.
    pub fn after(&mut self, event: &GraphNode, state: State) -> NewState {
        let number = self.next_number();
        let new = ready(after(self, &secret(), event, || Ok(number))).expect("every side is stored");
        self.store(new, state)
    }

    /// A name for `state`, which is stored.
    pub fn store_as(&mut self, state: State, base: Position, near: &[StateAt]) -> NewState {
        let number = self.next_number();
        let delta = difference(&state, self.state(StateAt::in_log(base)));
        let new = ready(store_as(self, &secret(), (&delta, base), near, || Ok(number))).expect("every side is stored");
        self.store(new, state)
    }

    fn next_number(&self) -> SideNid {
        SideNid(self.sides.len() as i64 + 1)
    }

    fn store(&mut self, new: NewState, state: State) -> NewState {
        if let Some(side) = &new.side {
            assert_eq!((side.at(), side.hash), (new.at, hash_of(&state)));
            self.sides.insert(side.nid, Arc::clone(side));
            self.states_of_sides.insert(side.nid, state.clone());
        }
        assert_eq!(self.state(new.at), &state, "{new:?}");
        new
    }

    /// The rows of the log of `key`, or of all keys, with those of jumps, after a position and up to another.
    fn rows_in(&self, key: Option<KeyNid>, after: Position, upto: Position) -> Vec<LogRow> {
        let wanted = |row: &LogRow| after < row.pos && row.pos <= upto && key.is_none_or(|key| row.key == key);
        let rows = self.rows.iter().copied().filter(wanted).collect();
        match key {
            Some(key) => merge(rows, self.jumps.iter().filter_map(|jump| jump.row(key)).filter(wanted)),
            None => merge(rows, self.jumps.iter().flat_map(Jump::rows).filter(wanted)),
        }
    }

    fn whole_now(&self, at: Position) -> Vec<(KeyNid, Held)> {
        let entries = self.log.state_at(at).unwrap_or_else(|| {
            let log = StateLog::new(secret(), Position::BEFORE_ALL);
            let log = log.replay(self.rows_in(None, Position::BEFORE_ALL, at)).expect("the rows are whole");
            log.entries().to_vec()
        });
        entries.into_iter().map(|(key, entry)| (key, Held::from(entry))).collect()
    }

    fn value_now(&self, key: KeyNid, at: Position) -> Option<Held> {
        match self.log.get_at(key, at) {
            Lookup::Present(entry) => Some(Held::from(entry)),
            Lookup::Absent => None,
            Lookup::NotInMemory => {
                let last = self.rows_in(Some(key), Position::BEFORE_ALL, at).pop()?;
                last.event_nid.map(|event_nid| Held { event_nid, membership: last.membership })
            }
        }
    }
}

impl Reads for World {
    type Error = NoSide;
}

impl LogReader for World {
    async fn value(&self, key: KeyNid, at: Position) -> Result<Option<Held>, NoSide> {
        Ok(self.value_now(key, at))
    }

    async fn between(&self, a: Position, b: Position) -> Result<StateDelta, NoSide> {
        let changed = self.rows_in(None, a.min(b), a.max(b)).into_iter().map(|row| row.key);
        let values = changed.map(|key| (key, self.value_now(key, a), self.value_now(key, b)));
        Ok(values.filter(|(_, at_a, at_b)| at_a != at_b).map(|(key, at_a, _)| (key, at_a)).collect())
    }

    async fn whole(&self, at: Position) -> Result<WholeState, NoSide> {
        Ok(self.whole_now(at).into())
    }

    async fn hash(&self, at: Position) -> Result<StateHash, NoSide> {
        Ok(self.log.hash_at(at).unwrap_or_else(|| hash_of(&self.whole_now(at).into_iter().collect())))
    }

    async fn position_of(&self, hash: StateHash) -> Result<Option<Position>, NoSide> {
        let of_jump = |jump: &&Jump| StateHash::of(&secret(), &jump.after) == hash;
        Ok(self.log.position_of(hash).or_else(|| self.jumps.iter().find(of_jump).map(|jump| jump.pos)))
    }

    async fn side(&self, nid: SideNid) -> Result<Arc<Side>, NoSide> {
        self.sides.get(&nid).cloned().ok_or(NoSide(nid))
    }

    async fn side_with(&self, hash: StateHash) -> Result<Option<Arc<Side>>, NoSide> {
        Ok(self.sides.values().find(|side| self.shares_sides && side.hash == hash).cloned())
    }
}

/// An event on a state, with a place of the line if `pos` is set.
pub(super) fn event(
    nid: EventNid,
    key: Option<KeyNid>,
    before: StateAt,
    flags: Flags,
    pos: Option<Position>,
) -> GraphNode {
    GraphNode {
        nid,
        event_id: owned_event_id!("$event"),
        flags,
        place: pos.map(TimelinePlace::on_line),
        before,
        key,
        membership: key.and_then(|key| held(key, nid).membership),
        depth: 1,
        ts: 0,
        prev: Vec::new(),
    }
}
