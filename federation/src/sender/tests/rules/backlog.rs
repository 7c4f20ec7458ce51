//! Destinations that have missed something.

use super::{super::super::*, hand::*};
use crate::ids::UserNid;

/// A destination that was down, and has just answered.
fn back(after: i64, cursor: i64) -> Hand {
    let mut hand = Hand::new(&[row(after, 3_600, 100_000, 100)], cursor);
    assert_eq!(hand.pass_s(99), NOTHING);
    assert_eq!(hand.pass_s(1), ["send 1: "]);
    assert_eq!(hand.ok(1), [format!("read 1 ({after}, {cursor}]")]);
    hand
}

#[test]
fn more_than_fits_into_memory_is_read_later() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    for pos in 2..=500 {
        assert_eq!(hand.event(pos, &[1]), NOTHING);
    }
    assert_eq!(hand.usage().queued, 500);
    assert_eq!(hand.event(501, &[1]), ["lag 1 after 0 for 0 s: next in 0 s"]);
    assert_eq!((hand.usage().queued, hand.done_upto()), (0, Some(0)));
    hand.stored(1);
    hand.event(502, &[1]);
    assert_eq!((hand.usage().queued, hand.done_upto()), (0, None));
    assert_eq!(hand.ok(1), ["read 1 (1, 502]"]);
}

#[test]
fn all_events_are_replayed_while_the_log_has_them() {
    let mut hand = back(3, 9);
    // Events that come from now on are in memory.
    hand.event(10, &[1]);
    let sent = hand.missed(1, page(&[(1, 4), (2, 5), (1, 8)], 9, true, false));
    assert_eq!(sent, ["send 1: e4 e5 e8"]);
    assert_eq!(hand.ok(1), ["lag 1 after 9 for 0 s: next in 0 s", "send 1: e10"]);
    assert_eq!(hand.ok(1), ["unlag 1"]);
}

#[test]
fn work_that_a_page_has_too_is_sent_once() {
    let mut hand = back(3, 9);
    (10..=12).for_each(|pos| _ = hand.event(pos, &[1]));
    // The page was read after the commits of two of them.
    assert_eq!(hand.missed(1, page(&[(1, 11)], 11, true, true)), ["send 1: e11"]);
    assert_eq!(hand.ok(1), ["lag 1 after 11 for 0 s: next in 0 s", "send 1: e12"]);
}

#[test]
fn work_that_became_too_much_while_a_page_was_sent_is_read_again() {
    let mut hand = back(3, 9);
    hand.missed(1, page(&[(1, 4)], 9, true, false));
    (10..=600).for_each(|pos| _ = hand.event(pos, &[1]));
    assert_eq!((hand.usage().queued, hand.done_upto()), (0, None));
    assert_eq!(hand.ok(1), ["lag 1 after 9 for 0 s: next in 0 s", "read 1 (9, 600]"]);
}

#[test]
fn a_room_has_a_transaction_of_its_own_if_its_newest_events_stand_for_all() {
    let mut hand = back(3, 900);
    let sent = hand.missed(1, page(&[(1, 400), (1, 400), (2, 500), (3, 600)], 600, false, true));
    assert_eq!(sent, ["send 1: e400 e400"]);
    assert_eq!(hand.ok(1), ["lag 1 after 499 for 0 s: next in 0 s", "send 1: e500"]);
    assert_eq!(hand.ok(1), ["send 1: e600"]);
    assert_eq!(hand.ok(1), ["read 1 (600, 900]"]);
    assert_eq!(hand.missed(1, page(&[], 905, true, true)), ["unlag 1"]);
    assert_eq!(hand.event(906, &[1]), ["send 1: e906"]);
}

#[test]
fn device_lists_and_messages_to_devices_go_before_a_backlog_that_is_read() {
    let mut hand = Hand::new(&[row(3, 3_600, 100_000, 100)], 9);
    hand.item(10, 1);
    hand.pass_s(100);
    // Messages to devices do not wait until it is read.
    assert_eq!(hand.ok(1), ["send 1: i10"]);
    assert_eq!(hand.ok(1), ["delete 1 upto 10", "lag 1 after 3 for 0 s: next in 0 s", "read 1 (3, 10]"]);
    let mut missed = page(&[(1, 4), (2, 5)], 9, false, true);
    missed.devices = vec![(Position(6), UserNid(1))];
    assert_eq!(hand.missed(1, missed), ["send 1: e4 d1@6"]);
    assert_eq!(hand.status(1, 502).len(), 1);
    assert_eq!(hand.pass_s(2), ["send 1: e4 d1@6"], "the same bytes, although the page is gone");
}

#[test]
fn progress_is_stored_from_time_to_time() {
    let mut hand = back(3, 900);
    let rooms: Vec<_> = (10..60).map(|pos| (pos, pos)).collect();
    hand.missed(1, page(&rooms, 900, true, true));
    let mut rows = 0;
    for _ in 0..50 {
        hand.pass_s(1);
        rows += hand.ok(1).iter().filter(|effect| effect.starts_with("lag")).count();
    }
    assert_eq!(rows, 10);
    assert_eq!(hand.usage(), ShardUsage::default());
}

#[test]
fn a_page_that_leads_nowhere_is_not_read_in_a_loop() {
    let mut hand = back(3, 9);
    assert_eq!(hand.missed(1, page(&[], 3, false, true)), NOTHING);
    assert_eq!(hand.pass_s(9), NOTHING);
    assert_eq!(hand.pass_s(1), ["read 1 (3, 9]"]);
    // The database does not answer.
    let number = hand.numbers[&(ServerNid(1), "read")];
    assert_eq!(hand.step(SenderInput::NotRead { server: ServerNid(1), number }), NOTHING);
    assert_eq!(hand.usage().catching_up, 0);
    assert_eq!(hand.pass_s(10), ["read 1 (3, 9]"]);
}

#[test]
fn sixteen_destinations_catch_up_at_a_time() {
    let rows: Vec<_> = (1..=20).map(|nid| LagRow { server: ServerNid(nid), ..row(3, 0, 0, 0) }).collect();
    let mut hand = Hand::new(&rows, 9);
    let reads: Vec<_> = hand.pass_s(0);
    assert_eq!((reads.len(), hand.usage().catching_up), (16, 16));
    assert_eq!(hand.missed(2, page(&[(1, 5)], 9, true, false)), ["send 2: e5"]);
    assert_eq!(hand.ok(2), ["unlag 2", "read 17 (3, 9]"]);
    // One that fails gives its turn to others.
    hand.missed(3, page(&[(1, 5)], 9, true, false));
    assert_eq!(hand.status(3, 502)[1], "read 18 (3, 9]");
}

#[test]
fn everything_is_there_within_minutes_of_the_first_contact() {
    let mut hand = Hand::new(&[row(0, 3_600, 20 * 24 * 3_600, 3_000)], 10_000);
    let mut effects = hand.step(SenderInput::Contact(ServerNid(1)));
    let mut next = 1;
    while !effects.iter().any(|effect| effect == "unlag 1") {
        if effects.iter().any(|effect| effect.starts_with("send")) {
            hand.pass(std::time::Duration::from_millis(100));
            effects = hand.ok(1);
        } else {
            // A thousand rooms, by pages.
            let rooms: Vec<_> = (next..next + 100).map(|room| (room, room)).collect();
            next += 100;
            let upto = if next > 1_000 { 10_000 } else { next - 1 };
            effects = hand.missed(1, page(&rooms, upto, next > 1_000, true));
        }
    }
    assert!(hand.now.moment < Moment(300_000), "{:?}", hand.now);
}
