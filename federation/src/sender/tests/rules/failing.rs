//! Destinations that fail: retries, rows, refusals, and those that are dead.

use std::time::Duration;

use super::{super::super::*, hand::*};

#[test]
fn a_retry_has_the_same_bytes() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    assert_eq!(hand.answer(1, SendResult::Failed), ["lag 1 after 0 for 1 s: next in 1 s"]);
    hand.event(2, &[1]);
    assert_eq!(hand.pass_s(2), ["send 1: e1"]);
    assert_eq!(hand.sent[0], hand.sent[1]);
    // Then all that came meanwhile.
    assert_eq!(hand.ok(1), ["lag 1 after 1 for 0 s: next in 0 s", "send 1: e2"]);
    assert_eq!(hand.ok(1), ["unlag 1"]);
}

#[test]
fn only_a_committed_row_lets_the_cursor_pass() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1, 2]);
    hand.ok(2);
    hand.status(1, 503);
    hand.event(2, &[1]);
    assert_eq!(hand.done_upto(), Some(0));
    hand.stored(1);
    assert_eq!(hand.done_upto(), None);
    // The row goes, and another comes: the answer about the first says nothing about it.
    let first = hand.numbers[&(ServerNid(1), "lag")];
    hand.pass_s(2);
    hand.ok(1);
    assert_eq!(hand.ok(1), ["unlag 1"]);
    hand.event(3, &[1]);
    hand.status(1, 503);
    hand.step(SenderInput::LagStored { server: ServerNid(1), number: first });
    assert_eq!(hand.done_upto(), Some(2));
    hand.stored(1);
    assert_eq!(hand.done_upto(), None);
}

#[test]
fn a_row_goes_when_all_is_delivered_that_the_cursor_may_have_passed() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    hand.answer(1, SendResult::Failed);
    hand.stored(1);
    for pos in 2..=70 {
        hand.event(pos, &[1]);
    }
    assert_eq!(hand.pass_s(2), ["send 1: e1"]);
    // From here on, later work holds the cursor back again, and 70 is the last that it may have passed.
    hand.ok(1);
    hand.event(71, &[1]);
    assert_eq!(hand.done_upto(), Some(70));
    assert_eq!(hand.ok(1), [format!("send 1: {}", events(52..=71))]);
    assert_eq!(hand.ok(1), ["unlag 1"]);
    assert_eq!(hand.done_upto(), None);
}

#[test]
fn a_destination_that_is_slow_gets_a_row_after_five_seconds() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    assert_eq!(hand.pass(Duration::from_millis(4_999)), NOTHING);
    assert_eq!(hand.pass(Duration::from_millis(1)), ["lag 1 after 0 for 0 s: next in 0 s"]);
    hand.stored(1);
    hand.event(2, &[1]);
    assert_eq!((hand.done_upto(), hand.pass_s(50)), (None, vec![]));
    // Its work is still in memory, so nothing is read.
    assert_eq!(hand.ok(1), ["lag 1 after 1 for 0 s: next in 0 s", "send 1: e2"]);
    hand.event(3, &[1]);
    assert_eq!(hand.done_upto(), Some(2));
    // That row covers it, without another write.
    assert_eq!((hand.pass_s(5), hand.done_upto()), (vec![], None));
}

#[test]
fn edus_that_fail_are_dropped_and_leave_no_row() {
    let mut hand = Hand::new(&[], 0);
    assert_eq!(hand.typing(1, &[1]), ["send 1: t1"]);
    assert_eq!(hand.answer(1, SendResult::Failed), NOTHING);
    // None is taken meanwhile, and there is nothing to try again.
    assert_eq!((hand.typing(2, &[1]), hand.pass_s(10)), (vec![], vec![]));
    assert_eq!(hand.usage(), ShardUsage::default());
    assert_eq!(hand.typing(3, &[1]), ["send 1: t3"]);
    // An event that comes meanwhile waits for the pause.
    hand.answer(1, SendResult::Failed);
    assert_eq!(hand.event(1, &[1]), NOTHING);
    assert_eq!(hand.pass_s(2), ["send 1: "]);
    assert_eq!(hand.ok(1), ["send 1: e1"]);
}

#[test]
fn a_bad_event_is_found_and_the_others_are_delivered() {
    // The position of the bad one, and the status.
    for (bad, status) in [(2, 400), (26, 400), (51, 413), (33, 422)] {
        let mut hand = Hand::new(&[], 0);
        hand.event(1, &[1]);
        for pos in 2..=51 {
            hand.event(pos, &[1]);
        }
        let bad_part = format!("e{bad}");
        let (mut effects, mut requests, mut skipped) = (hand.ok(1), 0, vec![]);
        while let Some(sent) = effects.iter().find(|effect| effect.starts_with("send")) {
            requests += 1;
            let is_bad = sent.split(' ').any(|part| part == bad_part);
            effects = hand.status(1, if is_bad { status } else { 200 });
            skipped.extend(effects.iter().filter(|effect| effect.starts_with("skip")).cloned());
        }
        // No pause in between, so no other event waits for longer than the requests take.
        assert_eq!(hand.now.moment, Moment(0));
        assert!(requests <= 18, "{bad}: {requests}");
        let part = format!("skip 1: Event {{ event: EventNid({bad}), pos: Position({bad}) }} NotTaken");
        assert_eq!((skipped, hand.done_upto()), (vec![part], None));
        assert_eq!(hand.usage(), ShardUsage::default());
    }
}

#[test]
fn an_event_at_which_the_destination_breaks_is_found_too() {
    for result in [SendResult::TimedOut, SendResult::Answered { status: 500, retry_after: None }] {
        let mut hand = Hand::new(&[], 0);
        hand.event(1, &[1]);
        (2..=9).for_each(|pos| _ = hand.event(pos, &[1]));
        let mut effects = hand.ok(1);
        let mut skipped = vec![];
        let mut delivered = 0;
        while delivered < 7 || skipped.is_empty() {
            assert!(hand.now.moment < Moment(3_600_000), "{effects:?}");
            let sent = effects.iter().rfind(|effect| effect.starts_with("send")).cloned();
            effects = match sent {
                Some(sent) if sent.contains("e5") => hand.answer(1, result),
                Some(sent) => {
                    delivered += sent.matches('e').count() - 1;
                    hand.ok(1)
                }
                // The events in memory were forgotten, and are read again.
                None if effects.iter().any(|effect| effect.starts_with("read")) => {
                    let after = hand.usage();
                    assert_eq!(after.catching_up, 1);
                    let left: Vec<_> = (2..=9).filter(|pos| *pos > hand.read_after).map(|pos| (1, pos)).collect();
                    hand.missed(1, page(&left, 9, true, false))
                }
                None => hand.pass_s(1),
            };
            skipped.extend(effects.iter().filter(|effect| effect.starts_with("skip")).cloned());
        }
        assert_eq!(skipped, ["skip 1: Event { event: EventNid(5), pos: Position(5) } NotTaken"]);
    }
}

#[test]
fn a_destination_that_is_down_never_loses_an_event() {
    // Every answer that says nothing about the contents, and those that are the same for an empty transaction.
    for result in [SendResult::Failed, SendResult::TimedOut].into_iter().chain(
        [400, 401, 403, 404, 408, 413, 429, 500, 502, 503]
            .map(|status| SendResult::Answered { status, retry_after: None }),
    ) {
        let mut hand = Hand::new(&[], 0);
        let mut effects = hand.event(1, &[1]);
        for _ in 0..200 {
            assert!(effects.iter().all(|effect| !effect.starts_with("skip")), "{result:?}: {effects:?}");
            effects = if effects.iter().any(|effect| effect.starts_with("send")) {
                hand.answer(1, result)
            } else {
                hand.pass_s(3_700)
            };
        }
        let usage = hand.usage();
        assert_eq!((usage.queued, usage.body_bytes, usage.failing), (0, 0, 1), "{result:?}");
    }
}

#[test]
fn a_busy_destination_is_left_alone_for_the_time_that_it_wants() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    let busy = |seconds| SendResult::Answered { status: 429, retry_after: Some(Duration::from_secs(seconds)) };
    assert_eq!(hand.answer(1, busy(600)), ["lag 1 after 0 for 1 s: next in 600 s"]);
    hand.step(SenderInput::Contact(ServerNid(1)));
    assert_eq!(hand.pass_s(599), NOTHING);
    assert_eq!(hand.pass_s(1).len(), 1);
    // A year is an hour.
    assert_eq!(hand.answer(1, busy(31_536_000)), ["lag 1 after 0 for 1 s: next in 3600 s"]);
}

#[test]
fn any_contact_wakes() {
    let mut hand = Hand::new(&[row(5, 3_600, 100_000, 3_000)], 9);
    assert_eq!(hand.pass_s(100), NOTHING);
    assert_eq!(hand.step(SenderInput::Contact(ServerNid(1))), ["send 1: "]);
    // It contacts us, and cannot be reached: a try each ten seconds.
    assert_eq!(hand.answer(1, SendResult::Failed), ["lag 1 after 5 for 1 s: next in 1 s"]);
    let mut tries = 0;
    for _ in 0..1_000 {
        let mut effects = hand.pass(Duration::from_millis(100));
        effects.extend(hand.step(SenderInput::Contact(ServerNid(1))));
        if effects.iter().any(|effect| effect.starts_with("send")) {
            tries += 1;
            hand.answer(1, SendResult::Failed);
        }
    }
    assert!(tries <= 101, "{tries}");
    // One that is healthy or unknown is not concerned.
    assert_eq!(hand.step(SenderInput::Contact(ServerNid(2))), NOTHING);
}

#[test]
fn a_dead_destination_costs_a_request_a_day_and_no_memory() {
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &[1]);
    hand.answer(1, SendResult::Failed);
    let mut requests = vec![];
    for day in 0..60_i64 {
        let mut count = 0;
        let end = Moment((day + 1) * 24 * 3_600 * 1_000);
        while let Some(at) = hand.shard.due_at().filter(|at| *at <= end) {
            let effects = hand.pass(at.since(hand.now.moment));
            if effects.iter().any(|effect| effect.starts_with("send")) {
                count += 1;
                hand.answer(1, SendResult::Failed);
            }
        }
        hand.pass(end.since(hand.now.moment));
        // Nothing of this is kept.
        assert_eq!(hand.event(2 + day * 2, &[1]), NOTHING);
        assert_eq!((hand.devices(3 + day * 2, 1, &[1]), hand.typing(1, &[1])), (vec![], vec![]));
        requests.push(count);
        let usage = hand.usage();
        assert_eq!((usage.queued, usage.edu_bytes, usage.body_bytes), (0, 0, 0));
    }
    assert!(requests[0] > 30 && requests[1..30].iter().all(|count| (20..=30).contains(count)), "{requests:?}");
    assert!(requests[31..].iter().all(|count| (1..=2).contains(count)), "{requests:?}");
    assert_eq!(hand.usage().dead, 1);
    // It is back.
    assert_eq!(hand.step(SenderInput::Contact(ServerNid(1))), ["send 1: "]);
    assert_eq!(hand.ok(1), ["read 1 (0, 121]"]);
}

#[test]
fn a_destination_is_dead_after_a_restart_too() {
    let day = 24 * 3_600;
    let mut hand = Hand::new(&[row(5, day, 31 * day, 7_200)], 9);
    assert_eq!(hand.usage().dead, 1);
    assert_eq!(hand.pass_s(7_199), NOTHING);
    assert_eq!(hand.pass_s(1), ["send 1: "]);
    let row = hand.answer(1, SendResult::Failed);
    assert!(row[0].starts_with("lag 1 after 5 for 86400 s"), "{row:?}");
}

#[test]
fn a_thousand_dead_destinations_take_a_fixed_memory_and_few_requests() {
    let all: Vec<i64> = (1..=1_000).collect();
    let mut hand = Hand::new(&[], 0);
    hand.event(1, &all);
    let mut sent: Vec<i64> = all.clone();
    let mut requests = 0;
    // A day, in which each minute has an event.
    for minute in 0..1_440 {
        while !sent.is_empty() {
            requests += sent.len();
            let answered: Vec<_> = sent.drain(..).flat_map(|server| hand.answer(server, SendResult::Failed)).collect();
            sent.extend(answered.iter().filter_map(|effect| requested(effect)));
        }
        hand.event(2 + minute, &all);
        sent.extend(hand.pass_s(60).iter().filter_map(|effect| requested(effect)));
    }
    let usage = hand.usage();
    assert_eq!((usage.destinations, usage.queued, usage.body_bytes), (1_000, 0, 0));
    // About 15 in the first ten minutes, and 26 in the hours after.
    assert!(requests < 50_000, "{requests}");
}

fn requested(effect: &str) -> Option<i64> {
    effect.strip_prefix("send ")?.split(':').next()?.parse().ok()
}

#[test]
fn slow_destinations_do_not_delay_others() {
    let mut hand = Hand::new(&[], 0);
    hand.padding = 60_000;
    // They take all the memory that they can, and do not answer.
    let slow: Vec<i64> = (2..=100).collect();
    (1..=5).for_each(|pos| _ = hand.event(pos, &slow));
    assert!(hand.usage().body_bytes <= Bounds::default().body_bytes);
    let mut effects = hand.event(6, &[1]);
    let mut waited = 0;
    while !effects.iter().any(|effect| effect == "send 1: e6") {
        waited += 1;
        effects = hand.pass_s(1);
    }
    // The first time, each of them has five seconds.
    assert!((1..=30).contains(&waited), "{waited}");
    hand.ok(1);
    // Then they are known as slow, and wait for each other.
    let contact = |server: &i64| hand.step(SenderInput::Contact(ServerNid(*server)));
    let mut tried: Vec<String> = slow.iter().flat_map(contact).collect();
    tried.extend(hand.pass_s(20));
    tried.iter().filter_map(|effect| requested(effect)).for_each(|server| _ = hand.ok(server));
    assert!(tried.len() > 20 && hand.usage().body_bytes > Bounds::default().body_bytes / 3, "{:?}", hand.usage());
    assert_eq!(hand.event(7, &[1]).last().map(String::as_str), Some("send 1: e7"));
}
