//! The tail: the latest changes in memory, which are bounded.

use super::*;

#[test]
fn the_tail_is_bounded_and_says_where_it_starts() {
    let log = joins(TAIL_CHANGES + 100).log;
    assert_eq!(log.tail.len(), TAIL_CHANGES);
    let from = Position(START.0 + 100);
    assert_eq!(log.tail_from(), from);

    let before = Position(from.0 - 1);
    assert_eq!(log.state_at(from).map(|state| state.len()), Some(100));
    assert_eq!(log.state_at(before), None);
    assert_eq!(log.changes_between(from, log.latest()).map(|delta| delta.len()), Some(TAIL_CHANGES));
    assert_eq!(log.changes_between(before, log.latest()), None);
    assert_eq!(log.get_at(KeyNid(100), before), Lookup::NotInMemory);
    // An entry that is older than the position has not changed since.
    assert_eq!(log.get_at(KeyNid(0), before), Lookup::from(log.get(KeyNid(0))));
    assert_eq!(log.get_at(KeyNid(100), from), Lookup::Absent);
    assert_eq!(log.len(), TAIL_CHANGES + 100);

    // The hashes reach as far back as the changes.
    let known = log.hash_at(from).expect("the tail starts there");
    assert_eq!(known, joins(100).log.hash());
    assert_eq!(log.position_of(known), Some(from));
    assert_eq!(log.hash_at(before), None);
    assert_eq!(log.position_of(joins(99).log.hash()), None);
    assert_eq!(log.position_of(log.hash()), Some(log.latest()));
}

#[test]
fn changes_newer_than_keep_since_are_never_dropped() {
    let mut history = joins(50);
    let committed = history.log.latest();
    history.log.keep_since(committed);
    for n in 0..3 * TAIL_CHANGES as i64 {
        history.log.apply(history.log.change(
            KeyNid(0),
            Position(committed.0 + 1 + n),
            Some(EventNid(1000 + n)),
            Some(Membership::Join),
        ));
    }
    assert_eq!(history.log.state_at(committed).map(|state| state.len()), Some(50));
    assert_eq!(history.log.tail.len(), 3 * TAIL_CHANGES);

    history.log.keep_since(history.log.latest());
    assert_eq!(history.log.tail.len(), TAIL_CHANGES);
    assert_eq!(history.log.state_at(committed), None);
}

#[test]
fn replaying_many_rows_keeps_only_the_tail() {
    let history = joins(TAIL_CHANGES * 2);
    let replayed = StateLog::new(secret(), START).replay(history.rows.iter().copied()).expect("the rows are whole");
    assert_eq!(replayed.tail, history.log.tail);
    assert_eq!(replayed.tail_from(), history.log.tail_from());
    assert_eq!(replayed.entries(), history.log.entries());
}

#[test]
fn fifty_thousand_entries_stay_small() {
    let log = joins(50_000).log;
    let tail = log.tail.capacity() * size_of::<TailChange>();
    let bytes = log.entries.capacity() * size_of::<(KeyNid, StateEntry)>() + tail;
    assert!(bytes <= 2_000_000, "{bytes} bytes");
    assert_eq!(size_of::<TailChange>(), 80);
}
