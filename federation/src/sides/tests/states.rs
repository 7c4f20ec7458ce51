//! The states of a random room: a log with jumps, branches that start and meet anywhere, and questions about all of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{
    super::{after, against, hash, store_as, value},
    world::{State, World, difference, event, hash_of, held, secret},
};
use crate::{
    ids::{EventNid, KeyNid, Position, SideNid, TimelinePlace},
    standing::{Flags, StateAt},
    test_ready::ready,
};

const KEYS: i64 = 7;

/// One of the states until now. `None`: the newest one, so that branches get long.
type Choice = Option<prop::sample::Index>;

#[derive(Clone, Debug)]
enum Step {
    /// A change of the log.
    Log { key: i64, event: Option<i64> },
    /// A whole state that replaces that of the log.
    Jump(Vec<Option<i64>>),
    /// An event, on any state.
    Event { before: Choice, key: Option<i64>, event: i64, flags: Flags },
    /// A state that has each key as in one of some states, as a resolution may give it.
    Merge { of: Vec<Choice>, picks: Vec<prop::sample::Index>, base: i64, near: usize },
}

fn any_choice() -> impl Strategy<Value = Choice> {
    prop::option::weighted(0.5, any::<prop::sample::Index>())
}

fn any_step() -> impl Strategy<Value = Step> {
    let flags = [Flags::NONE, Flags::NONE, Flags::SOFT_FAILED, Flags::REJECTED, Flags::CLAIMED];
    prop_oneof![
        4 => (0..KEYS, prop::option::weighted(0.8, 0..4_i64)).prop_map(|(key, event)| Step::Log { key, event }),
        1 => prop::collection::vec(prop::option::of(0..4_i64), KEYS as usize).prop_map(Step::Jump),
        8 => (any_choice(), prop::option::weighted(0.9, 0..KEYS), 0..4_i64, prop::sample::select(flags.to_vec()))
            .prop_map(|(before, key, event, flags)| Step::Event { before, key, event, flags }),
        3 => (
            prop::collection::vec(any_choice(), 1..4),
            prop::collection::vec(any::<prop::sample::Index>(), KEYS as usize),
            0..100_i64,
            0..4_usize,
        )
            .prop_map(|(of, picks, base, near)| Step::Merge { of, picks, base, near }),
    ]
}

fn key_and_event(key: i64, event: i64) -> (KeyNid, EventNid) {
    (KeyNid(key), EventNid(key * 10 + event))
}

/// A world after these steps, and the names of its states.
fn world_of(steps: Vec<Step>, shares_sides: bool) -> (World, Vec<StateAt>) {
    let mut world = World::new();
    world.shares_sides = shares_sides;
    let mut names = vec![StateAt::EMPTY];
    for step in steps {
        let chosen = |choice: &Choice| match choice {
            Some(index) => *index.get(&names),
            None => names[names.len() - 1],
        };
        let new = match step {
            Step::Log { key, event } => {
                StateAt::in_log(world.set(KeyNid(key), event.map(|event| key_and_event(key, event).1)))
            }
            Step::Jump(events) => {
                let events = (0..).zip(events).filter_map(|(key, event)| Some(key_and_event(key, event?)));
                StateAt::in_log(world.jump(&events.map(|(key, event)| (key, held(key, event))).collect()))
            }
            Step::Event { before, key, event: number, flags } => {
                let before = chosen(&before);
                let (nid, key) = match key {
                    Some(key) => (key_and_event(key, number).1, Some(KeyNid(key))),
                    None => (EventNid(-number), None),
                };
                let mut state = world.state(before).clone();
                if let Some(key) = key.filter(|_| !flags.contains(Flags::REJECTED)) {
                    state.insert(key, held(key, nid));
                }
                world.after(&event(nid, key, before, flags, None), state).at
            }
            Step::Merge { of, picks, base, near } => {
                let of: Vec<_> = of.iter().map(chosen).collect();
                let pick = |(key, pick): (i64, &prop::sample::Index)| {
                    let key = KeyNid(key);
                    Some((key, *world.state(*pick.get(&of)).get(&key)?))
                };
                let merged: State = (0..).zip(&picks).filter_map(pick).collect();
                let base = Position(base % (world.log.latest().0 + 1));
                world.store_as(merged, base, &of[..near.min(of.len())]).at
            }
        };
        names.push(new);
    }
    (world, names)
}

proptest! {
    // Each case asks for every state against every position.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_state_is_what_a_whole_copy_of_it_says(
        steps in prop::collection::vec(any_step(), 1..50),
        shares_sides in any::<bool>(),
    ) {
        let (world, names) = world_of(steps, shares_sides);
        for at in names {
            let state = world.state(at);
            prop_assert_eq!(ready(hash(&world, at)).unwrap(), hash_of(state));
            for key in (0..=KEYS).map(KeyNid) {
                prop_assert_eq!(ready(value(&world, at, key)).unwrap(), state.get(&key).copied());
            }
            for base in (0..=world.log.latest().0).map(Position) {
                let expected = difference(state, world.state(StateAt::in_log(base)));
                prop_assert_eq!(ready(against(&world, at, base)).unwrap(), expected);
            }
        }
    }

    #[test]
    fn one_state_has_one_side_if_the_reader_finds_it(steps in prop::collection::vec(any_step(), 1..50)) {
        let (world, _) = world_of(steps, true);
        let hashes: BTreeSet<_> = world.sides.values().map(|side| side.hash.to_bytes()).collect();
        prop_assert_eq!(hashes.len(), world.sides.len());
    }
}

/// A log in which key 1 goes through events 10, 11 and 12, at the positions 1 to 3.
fn small_world() -> World {
    let mut world = World::new();
    for event in 10..13 {
        world.set(KeyNid(1), Some(EventNid(event)));
    }
    world
}

#[test]
fn the_state_after_an_event_follows_from_its_flags_and_its_key() {
    let at = |pos| StateAt::in_log(Position(pos));
    let key = Some(KeyNid(5));
    let line = Some(Position(3));
    // The state after an event with number 50, on the log at position 2. `None`: a new side.
    let check = |key, flags, pos, expected: Option<StateAt>| {
        let mut world = small_world();
        let mut state = world.state(expected.unwrap_or(at(2))).clone();
        if expected.is_none() {
            state.insert(KeyNid(5), held(KeyNid(5), EventNid(50)));
        }
        let new = world.after(&event(EventNid(50), key, at(2), flags, pos), state);
        assert_eq!(new.side.is_some(), expected.is_none(), "{key:?} {flags:?}");
        assert_eq!(new.at, expected.unwrap_or(StateAt { pos: Position(2), side: Some(SideNid(1)) }));
    };
    // Messages, and rejected events, change nothing (trap 8).
    check(None, Flags::NONE, line, Some(at(2)));
    check(None, Flags::TIP, line, Some(at(2)));
    check(key, Flags::REJECTED, None, Some(at(2)));
    check(key, Flags::REJECTED | Flags::CLAIMED, None, Some(at(2)));
    // The only extremity has its state in the log.
    check(key, Flags::TIP, line, Some(at(3)));
    check(key, Flags::TIP | Flags::OURS, line, Some(at(3)));
    // Without a place there is no position to look at.
    check(key, Flags::TIP, None, None);
    // Another event has the state before it and its own key, also if it was soft-failed.
    check(key, Flags::NONE, line, None);
    check(key, Flags::SOFT_FAILED, None, None);
    check(key, Flags::CLAIMED, None, None);
}

#[test]
fn an_event_of_history_is_never_looked_up_at_its_gap() {
    let mut world = small_world();
    let before = StateAt::in_log(Position(1));
    let mut node = event(EventNid(50), Some(KeyNid(5)), before, Flags::TIP, None);
    node.place = Some(TimelinePlace { pos: Position(3), sub: -1 });
    let mut state = world.state(before).clone();
    state.insert(KeyNid(5), held(KeyNid(5), EventNid(50)));
    assert!(world.after(&node, state).side.is_some());
}

#[test]
fn a_change_that_gives_a_state_of_the_tail_needs_no_side_and_no_number() {
    let at = |pos| StateAt::in_log(Position(pos));
    for (before, event_nid, expected) in [(1, 11, 2), (3, 10, 1), (1, 12, 3), (2, 11, 2)] {
        let world = small_world();
        let node = event(EventNid(event_nid), Some(KeyNid(1)), at(before), Flags::NONE, None);
        let new = ready(after(&world, &secret(), &node, || panic!("no number is needed")));
        let new = new.unwrap();
        assert_eq!((new.at, new.side), (at(expected), None));
    }
}

#[test]
fn a_state_from_before_a_jump_is_not_found_in_memory_and_gets_a_side() {
    let mut world = small_world();
    let old = world.state(StateAt::in_log(Position(2))).clone();
    let whole: State = (1..100).map(|key| (KeyNid(key), held(KeyNid(key), EventNid(key * 10)))).collect();
    let jumped = world.jump(&whole);
    world.set(KeyNid(1), None);

    let side = world.store_as(old, Position(2), &[]);
    assert_eq!(side.at, StateAt::in_log(Position(2)), "its base is the state itself");
    let mut other = whole.clone();
    other.remove(&KeyNid(2));
    let side = world.store_as(other, world.log.latest(), &[StateAt::in_log(jumped)]).side.expect("it is new");
    assert_eq!((side.base_pos, side.delta.len()), (jumped, 1));
    // The state of a jump is a checkpoint, and those are looked at.
    assert_eq!(world.store_as(whole, Position(1), &[]).at, StateAt::in_log(jumped));
}

#[test]
fn a_state_becomes_the_next_side_on_the_state_it_differs_from_least() {
    let mut world = World::new();
    for key in 0..200 {
        world.set(KeyNid(key), Some(EventNid(key * 10)));
    }
    let with = |state: &State, changes: std::ops::Range<i64>, number: i64| {
        let mut state = state.clone();
        state.extend(changes.map(|key| (KeyNid(key), held(KeyNid(key), EventNid(key * 10 + number)))));
        state
    };
    let (early, head) = (StateAt::in_log(Position(100)), StateAt::in_log(world.log.latest()));
    let whole = world.state(head).clone();

    // A told state, on the current one: 120 keys are too many to be read one by one.
    let told = world.store_as(with(&whole, 10..130, 1), early.pos, &[early, head]).side.expect("it is new");
    assert_eq!((told.base_pos, told.ordinal, told.delta.len()), (head.pos, 0, 120));
    // A resolution of it with the current one, which is nearer to it.
    let inputs = [early, head, told.at()];
    let next = world.store_as(with(&whole, 10..120, 1), head.pos, &inputs).side.expect("it is new");
    assert_eq!((next.ordinal, next.delta.len()), (1, 10));
    assert_eq!(next.parent.as_ref(), Some(&told));
    // Another one, which is nearer to the log; nobody named the base as near.
    let other = world.store_as(with(&whole, 10..12, 1), head.pos, &[told.at()]).side.expect("it is new");
    assert_eq!((other.base_pos, other.ordinal, other.delta.len()), (head.pos, 0, 2));
    // Equal states are the states that are there.
    assert_eq!(world.store_as(with(&whole, 10..120, 1), early.pos, &[next.at()]).side, None);
    assert_eq!(world.store_as(with(&whole, 10..120, 1), early.pos, &[]).at, next.at());
    assert_eq!(world.store_as(whole, early.pos, &inputs).at, head);
}

#[test]
fn children_share_a_side_only_if_the_reader_finds_it() {
    for shares_sides in [true, false] {
        let mut world = small_world();
        world.shares_sides = shares_sides;
        let node = event(EventNid(50), Some(KeyNid(5)), StateAt::in_log(Position(2)), Flags::NONE, None);
        let mut state = world.state(node.before).clone();
        state.insert(KeyNid(5), held(KeyNid(5), EventNid(50)));
        let [first, second] = [(); 2].map(|()| world.after(&node, state.clone()));
        assert!(first.side.is_some());
        assert_eq!((first.at == second.at, second.side.is_none()), (shares_sides, shares_sides));
    }
}

#[test]
fn a_side_that_is_not_stored_is_an_error() {
    let world = small_world();
    let at = StateAt { pos: Position(1), side: Some(SideNid(9)) };
    assert!(ready(hash(&world, at)).is_err());
    assert!(ready(value(&world, at, KeyNid(1))).is_err());
    assert!(ready(against(&world, at, Position(1))).is_err());
    let node = event(EventNid(50), Some(KeyNid(5)), at, Flags::NONE, None);
    assert!(ready(after(&world, &secret(), &node, || Ok(SideNid(10)))).is_err());
}

/// The futures can be spawned.
#[test]
fn questions_may_be_asked_from_any_thread() {
    fn check<T: Send>(_: T) {}
    let (world, secret) = (small_world(), secret());
    let at = StateAt::EMPTY;
    let node = event(EventNid(50), Some(KeyNid(5)), at, Flags::NONE, None);
    check(against(&world, at, Position(1)));
    check(value(&world, at, KeyNid(1)));
    check(after(&world, &secret, &node, || Ok(SideNid(1))));
    check(store_as(&world, &secret, (&Default::default(), at.pos), &[at], || Ok(SideNid(1))));
}
