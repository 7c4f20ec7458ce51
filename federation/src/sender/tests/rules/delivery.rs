//! Healthy destinations: what goes into a transaction, and in which order.

use std::time::Duration;

use super::{super::super::*, hand::*};
use crate::ids::{RoomNid, UserNid};

#[test]
fn an_event_is_sent_at_once_and_holds_the_cursor_until_it_is_accepted() {
    let mut hand = Hand::new(&[], 4);
    assert_eq!(hand.event(5, &[1, 2]), ["send 1: e5", "send 2: e5"]);
    assert_eq!(hand.done_upto(), Some(4));
    assert_eq!(hand.ok(2), NOTHING);
    assert_eq!(hand.done_upto(), Some(4));
    assert_eq!(hand.ok(1), NOTHING);
    assert_eq!((hand.done_upto(), hand.usage()), (None, ShardUsage::default()));
    let sent = &hand.sent[0];
    let expected = r#"{"origin":"here.test","origin_server_ts":1700000000000,"pdus":[{"part":{"Event":5},"padding":""}],"edus":[]}"#;
    assert_eq!(**sent.body(), *expected);
    assert_eq!(sent.id().as_str().len(), 43);
}

#[test]
fn one_transaction_is_in_flight_and_the_next_has_all_that_came_meanwhile() {
    let mut hand = Hand::new(&[], 0);
    assert_eq!(hand.event(1, &[1]), ["send 1: e1"]);
    for pos in 2..=121 {
        assert_eq!(hand.event(pos, &[1]), NOTHING);
    }
    assert_eq!(hand.ok(1), [format!("send 1: {}", events(2..=51))]);
    assert_eq!(hand.done_upto(), Some(1));
    assert_eq!(hand.ok(1), [format!("send 1: {}", events(52..=101))]);
    assert_eq!(hand.done_upto(), Some(51));
    assert_eq!(hand.ok(1), [format!("send 1: {}", events(102..=121))]);
    assert_eq!(hand.ok(1), NOTHING);
}

#[test]
fn messages_to_devices_and_device_lists_go_before_the_backlog() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    for pos in 2..=100 {
        hand.event(pos, &[1]);
    }
    hand.devices(101, 7, &[1]);
    hand.item(102, 1);
    hand.typing(1, &[1]);
    // PDUs are shown first.
    assert_eq!(hand.ok(1), [format!("send 1: {} i102 d7@101 t1", events(2..=51))]);
    // The device list is at 101, and events before it wait.
    assert_eq!(hand.ok(1), ["delete 1 upto 102".to_owned(), format!("send 1: {}", events(52..=100))]);
    assert_eq!(hand.done_upto(), Some(51));
}

#[test]
fn a_flood_of_messages_to_devices_leaves_room_for_events() {
    let mut hand = Hand::new(&[], 0);
    hand.padding = 3_000;
    hand.event(1, &[1]);
    for pos in 2..=200 {
        hand.item(pos, 1);
    }
    hand.event(201, &[1]);
    let sent = hand.ok(1);
    assert!(sent[0].starts_with("send 1: e201 i2 i3 "), "{sent:?}");
    // Alone, they have the whole transaction: 256 KiB.
    let sent = hand.ok(1);
    assert_eq!(sent.len(), 2);
    let items = sent[1].matches('i').count();
    assert!((80..=86).contains(&items), "{items}");
    assert!(hand.sent.iter().all(|sent| sent.body().len() <= MAX_TRANSACTION_BYTES));
}

#[test]
fn at_most_a_hundred_edus_are_in_a_transaction() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    for pos in 2..=250 {
        hand.devices(pos, pos, &[1]);
    }
    let counts: Vec<_> =
        (0..4).map(|_| hand.ok(1).iter().map(|sent| sent.matches('@').count()).sum::<usize>()).collect();
    assert_eq!(counts, [100, 100, 49, 0]);
}

#[test]
fn work_at_one_position_is_done_when_all_of_it_is() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    let users = (1..=150).map(|user| Outgoing::DeviceList { user: UserNid(user), to: vec![ServerNid(1)] });
    hand.step(SenderInput::Committed { pos: Position(9), work: users.collect() });
    hand.ok(1);
    assert_eq!(hand.done_upto(), Some(8));
    hand.ok(1);
    assert_eq!(hand.done_upto(), Some(8));
    hand.ok(1);
    assert_eq!(hand.done_upto(), None);
}

#[test]
fn the_same_edu_sent_twice_has_two_ids() {
    let mut hand = Hand::new(&[], 0);
    for _ in 0..2 {
        assert_eq!(hand.typing(1, &[1]), ["send 1: t1"]);
        hand.ok(1);
        hand.pass(Duration::from_millis(1));
    }
    assert_ne!(hand.sent[0].id(), hand.sent[1].id());
}

#[test]
fn receipts_are_gathered_for_a_second() {
    let mut hand = Hand::new(&[], 0);
    let receipt = |hand: &mut Hand, user: i64| {
        let key = EduKey::Receipt { room: RoomNid(1), user: UserNid(user), thread: None };
        let json = super::super::driver::typing(user);
        hand.step(SenderInput::Edu(EduOut { key, to: vec![ServerNid(1)], json }))
    };
    assert_eq!(receipt(&mut hand, 1), ["send 1: t1"]);
    assert_eq!(hand.ok(1), NOTHING);
    assert_eq!((receipt(&mut hand, 2), receipt(&mut hand, 3)), (vec![], vec![]));
    // An event does not wait, and takes none along.
    assert_eq!(hand.event(1, &[1]), ["send 1: e1"]);
    hand.ok(1);
    assert_eq!(hand.pass(Duration::from_millis(999)), NOTHING);
    assert_eq!(hand.pass(Duration::from_millis(1)), ["send 1: t2 t3"]);
    hand.ok(1);
    hand.pass_s(1);
    assert_eq!(hand.usage(), ShardUsage::default());
}

#[test]
fn what_is_no_longer_stored_is_done() {
    let mut hand = Hand::new(&[], 0);
    hand.gone = vec![1, 3];
    assert_eq!(hand.event(1, &[1]), NOTHING);
    assert_eq!(hand.done_upto(), None);
    hand.event(2, &[1]);
    hand.event(3, &[1]);
    hand.event(4, &[1]);
    assert_eq!(hand.ok(1), ["send 1: e4"]);
    assert_eq!(hand.ok(1), NOTHING);
    // Items that were too old.
    hand.item(5, 2);
    hand.ok(2);
    hand.items.clear();
    hand.step(SenderInput::Committed { pos: Position(6), work: vec![Outgoing::Item { server: ServerNid(2), seq: 6 }] });
    assert_eq!(hand.usage(), ShardUsage::default());
}

#[test]
fn a_part_that_is_too_large_is_skipped() {
    let mut hand = Hand::new(&[], 0);
    hand.padding = MAX_PART_BYTES;
    assert_eq!(hand.event(1, &[1]), ["skip 1: Event { event: EventNid(1), pos: Position(1) } TooLarge"]);
    assert_eq!(hand.done_upto(), None);
}

#[test]
fn a_read_that_fails_is_repeated() {
    let mut hand = Hand::new(&[], 0);
    let (server, number) = (ServerNid(1), EffectNumber(1));
    let event = Outgoing::Event { room: RoomNid(1), event: crate::ids::EventNid(1), to: vec![server] };
    let mut rand = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(0);
    hand.shard.step(SenderInput::Committed { pos: Position(1), work: vec![event] }, hand.now, &mut rand);
    assert_eq!(hand.step(SenderInput::NotRead { server, number }), NOTHING);
    assert_eq!((hand.usage().body_bytes, hand.done_upto()), (0, Some(0)));
    // It is covered by a row meanwhile.
    assert_eq!(hand.pass_s(9), ["lag 1 after 0 for 0 s: next in 0 s"]);
    assert_eq!(hand.pass_s(1), ["send 1: e1"]);
    assert_eq!(hand.ok(1), ["unlag 1"]);
}

#[test]
fn late_answers_are_ignored() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    let old = hand.numbers[&(ServerNid(1), "send")];
    hand.ok(1);
    hand.event(2, &[1]);
    let result = SendResult::Answered { status: 200, retry_after: None };
    let input = SenderInput::Answered { server: ServerNid(1), number: old, result, reason: String::new() };
    assert_eq!((hand.step(input), hand.done_upto()), (vec![], Some(1)));
    let input = SenderInput::Answered { server: ServerNid(9), number: old, result, reason: String::new() };
    assert_eq!(hand.step(input), NOTHING);
}

#[test]
fn after_an_outage_of_ours_all_are_told_within_five_minutes() {
    let mut hand = Hand::new(&[row(0, 60, 900, 30)], 0);
    hand.step(SenderInput::Announce((1..=100).map(ServerNid).collect()));
    // One gets an event, which tells it as well.
    assert_eq!(hand.event(1, &[2]), ["send 2: e1"]);
    hand.ok(2);
    let mut told = 0;
    for _ in 0..5 {
        let sent = hand.pass_s(60);
        assert!((5..40).contains(&sent.len()), "not all at once: {}", sent.len());
        told += sent.iter().filter(|sent| sent.ends_with(": ") && **sent != "send 1: ").count();
    }
    assert_eq!(told, 98);
    for server in 3..=100 {
        // A failure is no reason to try again: nothing waits.
        assert_eq!(hand.answer(server, SendResult::Failed), NOTHING);
    }
    hand.pass_s(10);
    assert_eq!(hand.usage().destinations, 1);
}
