//! Branches: the parents of their sides, and what they cost.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    super::{Side, encode, parent_ordinal},
    world::{held, secret},
};
use crate::{
    held::StateDelta,
    ids::{EventNid, KeyNid, Position, SideNid},
    state_log::StateHash,
};

fn change(key: i64, event: i64) -> StateDelta {
    let key = KeyNid(key);
    StateDelta::from_iter([(key, Some(held(key, EventNid(event))))])
}

/// A branch of one change a side, of these keys, from the empty state. Beside each side is its whole difference.
fn branch(keys: impl IntoIterator<Item = i64>) -> Vec<(Arc<Side>, StateDelta)> {
    let mut branch: Vec<(Arc<Side>, StateDelta)> = Vec::new();
    for (number, key) in (1..).zip(keys) {
        let change = change(key, 1_000_000 + number * 7);
        let now = branch.last().map(|(_, before)| before.clone()).unwrap_or_default();
        let was = StateDelta::from_iter([(KeyNid(key), now.get(KeyNid(key)).flatten())]);
        let nid = SideNid(number);
        let side = match branch.last() {
            None => Side::on_log(nid, (Position(5), StateHash::EMPTY), change.clone(), &was, &secret()),
            Some((before, _)) => before.next(nid, change.clone(), &was, &secret()),
        };
        branch.push((Arc::new(side), now.then(&change)));
    }
    branch
}

fn ancestors(side: &Side) -> usize {
    std::iter::successors(side.parent.as_deref(), |side| side.parent.as_deref()).count()
}

#[test]
fn the_parent_of_a_side_is_its_number_without_the_lowest_bit() {
    #[rustfmt::skip]
    let parents = [
        0, 0, 2, 0, 4, 4, 6, 0, 8, 8, 10, 8, 12, 12, 14, 0, 16, 16, 18, 16, 20, 20, 22, 16, 24, 24, 26, 24, 28, 28, 30,
        0, 32, 32, 34, 32, 36, 36, 38, 32, 40, 40, 42, 40, 44, 44, 46, 32, 48, 48, 50, 48, 52, 52, 54, 48, 56, 56, 58,
        56, 60, 60, 62,
    ];
    assert_eq!(parent_ordinal(0), None);
    let branch = branch((0..64).map(|key| key % 5));
    for (ordinal, parent) in (1..64).zip(parents) {
        assert_eq!(parent_ordinal(ordinal), Some(parent));
        let side = &branch[ordinal as usize].0;
        assert_eq!((side.ordinal, side.parent.as_ref()), (ordinal, Some(&branch[parent as usize].0)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_branch_is_right_everywhere_and_short_to_walk(keys in prop::collection::vec(0..40_i64, 1..200)) {
        let branch = branch(keys);
        let mut entries = 0;
        for (number, (side, whole)) in (1_usize..).zip(&branch) {
            prop_assert_eq!(side.against_base(), whole.clone());
            let hash = whole.iter().fold(StateHash::EMPTY, |hash, (key, held)| {
                hash.with(&secret(), key, None, held.map(|held| held.event_nid))
            });
            prop_assert_eq!(side.hash, hash);
            for key in (0..=40).map(KeyNid) {
                prop_assert_eq!(side.get(key), whole.get(key));
            }
            prop_assert!(ancestors(side) <= number.ilog2() as usize + 1, "{} ancestors of {}", ancestors(side), number);
            entries += side.delta.len();
        }
        prop_assert!(entries <= branch.len() * (branch.len().ilog2() as usize + 1), "{} entries", entries);
    }

    // Numbers come from storage too. Wrong ones make a side long or its way long, but never another state.
    #[test]
    fn the_state_of_a_side_does_not_depend_on_numbers(
        sides in prop::collection::vec((0..6_i64, prop_oneof![0..20_u32, any::<u32>()]), 1..30),
    ) {
        let mut whole = StateDelta::default();
        let mut last: Option<Arc<Side>> = None;
        for (number, (key, ordinal)) in (1..).zip(sides) {
            let change = change(key, 10 + number);
            let was = StateDelta::from_iter([(KeyNid(key), whole.get(KeyNid(key)).flatten())]);
            whole = whole.then(&change);
            let side = match last {
                None => Side::on_log(SideNid(number), (Position(5), StateHash::EMPTY), change, &was, &secret()),
                Some(last) => last.next(SideNid(number), change, &was, &secret()),
            };
            prop_assert_eq!(side.against_base(), whole.clone());
            last = Some(Arc::new(Side { ordinal, ..side }));
        }
    }
}

#[test]
fn a_large_first_side_is_stored_once() {
    let told: StateDelta = (0..1_000).map(|key| (KeyNid(key), Some(held(KeyNid(key), EventNid(key))))).collect();
    let was = told.keys().map(|key| (key, None)).collect();
    let first = Side::on_log(SideNid(1), (Position(5), StateHash::EMPTY), told, &was, &secret());
    let mut last = Arc::new(first);
    let mut entries = 0;
    for number in 0..64 {
        let was = StateDelta::from_iter([(KeyNid(2_000 + number), None)]);
        last = Arc::new(last.next(SideNid(2 + number), change(2_000 + number, number), &was, &secret()));
        entries += last.delta.len();
    }
    assert!(entries <= 64 * 7, "{entries} entries");
    assert_eq!(last.against_base().len(), 1_064);
}

#[test]
fn a_change_takes_few_bytes() {
    // 300 keys in a mixed order, with the numbers of a database that has been in use for a while.
    let branch = branch((0..1_000_i64).map(|number| 100_000 + number * 7_919 % 300 * 5));
    let sizes: Vec<_> = branch.iter().map(|(side, _)| encode(&side.delta).len()).collect();
    let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    // Decision 20 says what this is as a row.
    assert!((30.0..32.0).contains(&mean), "{mean} bytes: {sizes:?}");
}
