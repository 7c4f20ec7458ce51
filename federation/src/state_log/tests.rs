//! The log against a model that keeps every state whole: rewind, replay and checkpoint must all agree
//! with it at every position, also between changes.

mod jumps;
mod stored;
mod tail;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{checkpoint, *};
use crate::held::Held;

type State = BTreeMap<KeyNid, StateEntry>;
type Delta = BTreeMap<KeyNid, Option<StateEntry>>;

const START: Position = Position(10);

/// Keys below this are members, the others are not.
const MEMBER_KEYS: i64 = 4;

fn membership_of(key: KeyNid, event_nid: EventNid) -> Option<Membership> {
    (key.0 < MEMBER_KEYS).then_some(match event_nid.0 % 5 {
        0 => Membership::Join,
        1 => Membership::Invite,
        2 => Membership::Leave,
        3 => Membership::Ban,
        _ => Membership::Knock,
    })
}

fn secret() -> StateHashKey {
    StateHashKey::new(&[7; 32])
}

/// A log with everything that ever happened to it, and the state after each position by brute force.
#[derive(Debug)]
struct History {
    log: StateLog,
    rows: Vec<LogRow>,
    jumps: Vec<Jump>,
    states: BTreeMap<Position, State>,
}

impl History {
    fn new() -> Self {
        let states = BTreeMap::from([(START, State::new())]);
        Self { log: StateLog::new(secret(), START), rows: Vec::new(), jumps: Vec::new(), states }
    }

    fn set(&mut self, key: KeyNid, pos: Position, event_nid: Option<EventNid>) {
        let membership = event_nid.and_then(|event_nid| membership_of(key, event_nid));
        let prev_event_nid = self.log.get(key).map(|entry| entry.event_nid);
        self.rows.push(LogRow { key, pos, event_nid, membership, prev_event_nid });
        self.log.apply(self.log.change(key, pos, event_nid, membership));

        let mut state = self.state_at(pos);
        match event_nid {
            Some(event_nid) => drop(state.insert(key, StateEntry { event_nid, pos, membership })),
            None => drop(state.remove(&key)),
        }
        self.states.insert(pos, state);
    }

    /// Replaces the whole state by these events.
    fn jump(&mut self, pos: Position, events: &BTreeMap<KeyNid, EventNid>) {
        let held = |(key, event_nid): (&KeyNid, &EventNid)| {
            (*key, Held { event_nid: *event_nid, membership: membership_of(*key, *event_nid) })
        };
        let (before, old) = (self.log.entries().to_vec(), self.state_at(pos));
        self.log = self.log.jump(pos, events.iter().map(held).collect());
        self.jumps.push(Jump { pos, before, after: self.log.entries().to_vec() });

        let state = events.iter().map(held).map(|(key, Held { event_nid, membership })| {
            let same = old.get(&key).copied().filter(|entry| entry.event_nid == event_nid);
            (key, same.unwrap_or(StateEntry { event_nid, pos, membership }))
        });
        self.states.insert(pos, state.collect());
    }

    fn state_at(&self, pos: Position) -> State {
        self.states.range(..=pos).next_back().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn rows_in(&self, after: Position, upto: Position) -> impl Iterator<Item = LogRow> {
        self.rows.iter().copied().filter(move |row| after < row.pos && row.pos <= upto)
    }

    /// Every position from the start to beyond the newest change, gaps too.
    fn positions(&self) -> impl Iterator<Item = Position> + Clone + use<> {
        (START.0..=self.log.latest().0 + 2).map(Position)
    }
}

prop_compose! {
    /// Steps over few keys and few events, so that events come back and keys come and go. Several keys
    /// may change at one position; one key changes there once.
    fn any_history()(
        steps in prop::collection::vec((0..7_i64, 0..4_i64, prop::option::weighted(0.8, 0..6_i64)), 0..50),
    ) -> History {
        let mut history = History::new();
        for (key, gap, event) in steps {
            let key = KeyNid(key);
            let latest = history.log.latest();
            let taken = gap == 0
                && (latest == START || history.rows.iter().any(|row| row.pos == latest && row.key == key));
            let pos = Position(latest.0 + gap + i64::from(taken));
            history.set(key, pos, event.map(|event| EventNid(key.0 * 10 + event)));
        }
        history
    }
}

fn sorted(state: &State) -> Vec<(KeyNid, StateEntry)> {
    state.iter().map(|(key, entry)| (*key, *entry)).collect()
}

fn events(state: &State) -> BTreeMap<KeyNid, EventNid> {
    state.iter().map(|(key, entry)| (*key, entry.event_nid)).collect()
}

fn count(state: &State, membership: Membership) -> usize {
    state.values().filter(|entry| entry.membership == Some(membership)).count()
}

fn delta(log: &StateLog, after: Position, upto: Position) -> Delta {
    log.changes_between(after, upto).expect("these tests stay within the tail").into_iter().collect()
}

/// Checks everything that a log says about the current state.
fn assert_is(log: &StateLog, state: &State) {
    assert_eq!(log.entries(), sorted(state));
    assert_eq!(log.len(), state.len());
    assert_eq!(log.is_empty(), state.is_empty());
    assert_eq!(log.hash(), StateHash::of(&secret(), &sorted(state)));
    assert_eq!(log.joined(), count(state, Membership::Join));
    assert_eq!(log.invited(), count(state, Membership::Invite));
    for membership in [Membership::Join, Membership::Invite, Membership::Leave, Membership::Ban, Membership::Knock] {
        assert_eq!(log.members(membership).count(), count(state, membership));
    }
}

proptest! {
    // Each case compares every position with every other one.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_current_state_is_what_was_applied(history in any_history()) {
        assert_is(&history.log, &history.state_at(history.log.latest()));
    }

    #[test]
    fn rewinding_replaying_and_checkpoints_agree_at_every_position(history in any_history()) {
        let end = history.log.latest();
        for pos in history.positions() {
            let state = history.state_at(pos);

            let rewound = history.log.state_at(pos);
            prop_assert_eq!(rewound.as_ref(), Some(&sorted(&state)));
            for key in (0..8).map(KeyNid) {
                prop_assert_eq!(history.log.get_at(key, pos), Lookup::from(state.get(&key).copied()));
            }

            let replayed = StateLog::new(secret(), START).replay(history.rows_in(START, pos)).expect("the rows are whole");
            assert_is(&replayed, &state);

            let blob = checkpoint::encode(&sorted(&state));
            let entries = checkpoint::decode(&blob).expect("nothing damaged it");
            let stored = Checkpoint { pos, hash: replayed.hash(), entries };
            let resumed = StateLog::from_checkpoint(secret(), stored, history.rows_in(pos, end)).expect("the rows are whole");
            assert_is(&resumed, &history.state_at(end));
            prop_assert_eq!(resumed.tail_from(), pos);
            for later in history.positions() {
                let expected = (pos <= later).then(|| sorted(&history.state_at(later)));
                prop_assert_eq!(resumed.state_at(later), expected);
            }
        }
    }

    #[test]
    fn every_position_has_the_hash_of_its_state_and_is_found_by_it(history in any_history()) {
        let hash_of = |pos| StateHash::of(&secret(), &sorted(&history.state_at(pos)));
        for pos in history.positions() {
            prop_assert_eq!(history.log.hash_at(pos), Some(hash_of(pos)));
            // The latest position with this state, of those at which something changed.
            let latest = history.states.keys().rev().find(|other| hash_of(**other) == hash_of(pos));
            prop_assert_eq!(history.log.position_of(hash_of(pos)), latest.copied());
        }
        // A state between two changes of one position has no position, unless it was there at another.
        let mut hash = StateHash::EMPTY;
        for row in &history.rows {
            hash = hash.with(&secret(), row.key, row.prev_event_nid, row.event_nid);
            let found = history.log.position_of(hash);
            prop_assert!(found.is_none_or(|pos| hash_of(pos) == hash));
        }
        prop_assert_eq!(history.log.hash_at(Position(START.0 - 1)), None);
    }

    #[test]
    fn changes_between_lists_the_keys_whose_event_differs(history in any_history()) {
        for after in history.positions() {
            for upto in history.positions().filter(|upto| after <= *upto) {
                let (old, new) = (history.state_at(after), history.state_at(upto));
                let expected: Delta = (0..8)
                    .map(KeyNid)
                    .filter(|key| events(&old).get(key) != events(&new).get(key))
                    .map(|key| (key, new.get(&key).copied()))
                    .collect();
                prop_assert_eq!(delta(&history.log, after, upto), expected);
            }
        }
    }

    #[test]
    fn no_more_keys_have_changed_than_is_foreseen(history in any_history()) {
        for after in history.positions() {
            let (old, new) = (history.state_at(after), history.state_at(history.log.latest()));
            let changed = new.iter().filter(|(key, _)| events(&old).get(key) != events(&new).get(key)).count();
            prop_assert!(changed <= history.log.changed_at_most(after));
            prop_assert!(history.log.changed_at_most(after) <= new.len());
        }
    }

    #[test]
    fn changes_between_composes(history in any_history(), cuts in prop::array::uniform3(0..200_i64)) {
        let length = history.log.latest().0 - START.0 + 3;
        let mut cuts = cuts.map(|cut| Position(START.0 + cut % length));
        cuts.sort();
        let [a, b, c] = cuts;

        let mut composed = delta(&history.log, a, b);
        composed.extend(delta(&history.log, b, c));
        let event = |entry: Option<StateEntry>| entry.map(|entry| entry.event_nid);
        let old = history.state_at(a);
        // A key that changed in the first part and came back in the second has not changed over both.
        composed.retain(|key, entry| event(*entry) != event(old.get(key).copied()));

        let by_event = |delta: Delta| -> BTreeMap<_, _> {
            delta.into_iter().map(|(key, entry)| (key, event(entry))).collect()
        };
        prop_assert_eq!(by_event(composed), by_event(delta(&history.log, a, c)));
    }

    #[test]
    fn a_missing_row_is_an_error_or_changed_nothing_later(history in any_history(), at in any::<prop::sample::Index>()) {
        prop_assume!(!history.rows.is_empty());
        let at = at.index(history.rows.len());
        let mut rows = history.rows.clone();
        let missing = rows.remove(at);
        let noticed = StateLog::new(secret(), START).replay(rows.iter().copied()).is_err();
        let last_of_key = rows[at..].iter().all(|row| row.key != missing.key);
        let no_change = missing.event_nid == missing.prev_event_nid;
        // The last row of a key is missed by comparing the hash, which the room's head stores.
        prop_assert!(noticed || last_of_key || no_change);
    }
}

/// A room in which `members` users join, one at each position from 11 on.
fn joins(members: usize) -> History {
    let mut history = History::new();
    for n in 0..members as i64 {
        let (key, pos, event_nid) = (KeyNid(n), Position(START.0 + 1 + n), EventNid(100 + n));
        let membership = Some(Membership::Join);
        history.rows.push(LogRow { key, pos, event_nid: Some(event_nid), membership, prev_event_nid: None });
        history.log.apply(history.log.change(key, pos, Some(event_nid), membership));
    }
    history
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "a change must start from the current entry")]
fn a_change_from_another_state_is_caught() {
    let mut log = joins(1).log;
    let stale = log.change(KeyNid(0), Position(20), Some(EventNid(200)), Some(Membership::Leave));
    log.apply(stale);
    log.apply(Change { pos: Position(21), ..stale });
}
