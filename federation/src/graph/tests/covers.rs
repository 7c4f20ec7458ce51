//! The rules for forward extremities, one case each.

use super::*;
use Kind::{History, Line, Outlier, Rejected, SoftFailed};

/// Takes events with their previous ones, in this order, and returns the room.
fn room(events: &[(Number, &[Number], Kind)]) -> Graph {
    let mut graph = Graph::default();
    for (number, prev, kind) in events {
        graph.take(*number, prev, *kind).unwrap();
    }
    graph
}

fn ids(numbers: &[Number]) -> BTreeSet<OwnedEventId> {
    numbers.iter().map(|number| id(*number)).collect()
}

/// Takes events in this order, and expects these forward extremities, and these missing events to be covered.
#[track_caller]
fn check(events: &[(Number, &[Number], Kind)], extremities: &[Number], in_advance: &[Number]) {
    let graph = room(events);
    assert_eq!((graph.extremities(), graph.covered_in_advance()), (ids(extremities), ids(in_advance)), "{events:?}");
}

#[test]
fn an_accepted_event_covers_what_it_names() {
    check(&[(1, &[], Line), (2, &[1], Line)], &[2], &[]);
    check(&[(1, &[], Line), (2, &[1], Line), (3, &[1], Line)], &[2, 3], &[]);
    check(&[(1, &[], Line), (2, &[1], Line), (3, &[1], Line), (4, &[2, 3], Line)], &[4], &[]);
    // An event of history covers too, though it is no extremity itself.
    check(&[(1, &[], Line), (2, &[], Line), (3, &[2], History)], &[1], &[]);
}

#[test]
fn a_failed_event_covers_nothing_until_an_accepted_one_names_it() {
    for failed in [SoftFailed, Rejected] {
        check(&[(1, &[], Line), (2, &[1], failed)], &[1], &[]);
        check(&[(1, &[], Line), (2, &[1], Line), (3, &[2], failed), (4, &[1, 3], Line)], &[4], &[]);
        // A dead extremity behind failed events, one behind another.
        let chain: &[(_, &[_], _)] =
            &[(1, &[], Line), (2, &[1], failed), (3, &[2], Rejected), (4, &[3], SoftFailed), (5, &[4], Line)];
        check(chain, &[5], &[]);
        // A failed event that names another branch takes that with it.
        check(&[(1, &[], Line), (2, &[1], Line), (3, &[1], Line), (4, &[2, 3], failed), (5, &[4], Line)], &[5], &[]);
    }
}

#[test]
fn a_missing_event_is_covered_before_it_comes() {
    check(&[(1, &[], Line), (3, &[1, 2], Line)], &[3], &[2]);
    check(&[(1, &[], Line), (3, &[1, 2], Line), (2, &[1], Line)], &[3], &[2]);
    // Through failed events: the missing one is named by a failed event that is covered.
    check(&[(1, &[], Line), (3, &[2], SoftFailed)], &[1], &[]);
    check(&[(1, &[], Line), (3, &[2], SoftFailed), (4, &[3], Line)], &[1, 4], &[2]);
    check(&[(1, &[], Line), (3, &[2], SoftFailed), (4, &[3], Line), (2, &[1], Line)], &[4], &[2]);
    // A failed event that came after a failed child is found by its ID.
    check(&[(1, &[], Line), (3, &[2], Rejected), (2, &[1], Rejected), (4, &[3], Line)], &[4], &[]);
}

#[test]
fn a_failed_event_that_comes_late_and_covered_covers_what_it_names() {
    check(&[(1, &[], Line), (2, &[1], Line), (4, &[3], Line)], &[2, 4], &[3]);
    check(&[(1, &[], Line), (2, &[1], Line), (4, &[3], Line), (3, &[2], SoftFailed)], &[4], &[3]);
    // Its own missing events are covered with it.
    check(
        &[(1, &[], Line), (2, &[1], Line), (5, &[4], Line), (4, &[3], Rejected), (3, &[2], SoftFailed)],
        &[5],
        &[3, 4],
    );
}

#[test]
fn an_outlier_is_as_good_as_missing() {
    // It covers nothing, and is none.
    check(&[(1, &[], Line), (2, &[1], Outlier)], &[1], &[]);
    // It is covered before it is placed, also through a failed event.
    check(&[(1, &[], Line), (2, &[1], Outlier), (3, &[2], Line), (2, &[1], Line)], &[3], &[2]);
    check(&[(1, &[], Line), (2, &[1], Outlier), (3, &[2], Rejected), (4, &[3], Line), (2, &[1], Line)], &[4], &[2]);
    // The event that it names stays until it is placed.
    check(&[(1, &[], Line), (2, &[1], Outlier), (3, &[2], Line)], &[1, 3], &[2]);
    check(&[(1, &[], Line), (2, &[1], Outlier), (3, &[2], Line), (2, &[1], SoftFailed)], &[3], &[2]);
}

#[test]
fn an_event_of_another_room_counts_as_missing() {
    // Event 2 is stored in another room, so this room's reader does not find it.
    let graph = room(&[(1, &[], Line), (3, &[1, 2], Line)]);
    let prev = ready(previous(&graph, &[id(2), id(1), id(2)])).unwrap();
    assert_eq!(prev.known.iter().map(|node| node.event_id.clone()).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(prev.missing, ids(&[2]));
}

#[test]
fn a_room_keeps_its_last_extremity() {
    let mut graph = room(&[(1, &[], Line)]);
    assert_eq!(graph.take(2, &[1], History), Err(NoneLeft));
    assert_eq!(graph.extremities(), ids(&[1]));
}

#[test]
fn a_walk_has_a_bound_and_the_rest_stays() {
    const FAILED: Number = 3_000;
    // A chain of failed events, each of which names a branch and a missing event too.
    let mut graph = room(&[(0, &[], Line)]);
    for number in 1..=FAILED {
        graph.take(10_000 + number, &[0], Line).unwrap();
        graph.take(number, &[number - 1, 10_000 + number, 20_000 + number], SoftFailed).unwrap();
    }
    graph.reads.store(0, Ordering::Relaxed);
    graph.take(FAILED + 1, &[FAILED], Line).unwrap();
    // A third of the bound for each kind. The nearest go.
    let left = graph.extremities();
    assert!((2_660..=2_670).contains(&left.len()), "{}", left.len());
    assert!(left.contains(&id(10_001)) && !left.contains(&id(10_000 + FAILED)));
    assert!((330..=340).contains(&graph.covered_in_advance().len()));
    assert!(graph.reads.load(Ordering::Relaxed) < 2_000);
}

#[test]
fn a_node_that_is_not_stored_is_an_error() {
    let graph = room(&[(1, &[], Line), (2, &[1], SoftFailed)]);
    let mut broken = room(&[(1, &[], Line), (2, &[1], SoftFailed)]);
    broken.pdus.clear();
    let prev = ready(previous(&graph, &[id(2)])).unwrap();
    assert!(ready(covers(&graph, &prev)).is_ok());
    assert!(ready(covers(&broken, &prev)).is_err());
}
