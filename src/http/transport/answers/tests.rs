//! The rules by numbers: answers of which only the size and the rest that is left are known, and a clock that stands still.

use std::{sync::atomic::AtomicI64, time::Duration};

use http_body_util::BodyExt as _;

use super::{
    way::{SHARES, YOUNG},
    *,
};
use crate::http::transport::pace::{GRACE, earned};

const BUDGET: usize = 100 << 10;

/// Each answer of a test that is not about shares is for somebody else.
fn hold(answers: &Answers, bytes: usize, hangup: &Hangup) -> Option<Held> {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    answers.hold(bytes, Receiver::User(UserNid(NEXT.fetch_add(1, Ordering::Relaxed))), hangup)
}

fn answers() -> Arc<Answers> {
    Arc::new(Answers::new(BUDGET))
}

async fn is_hung_up_on(hangup: &Hangup) -> bool {
    tokio::time::timeout(Duration::ZERO, hangup.wanted()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_answer_costs_the_budget_until_its_last_piece_is_dropped() {
    let (answers, hangup) = (answers(), Hangup::default());
    let mut body = hold(&answers, BUDGET, &hangup).expect("there is room").body(vec![7; BUDGET].into());
    assert!(hold(&answers, 1, &hangup).is_none(), "nobody is slow yet");
    let first = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
    let second = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
    assert_eq!((first.len(), second.len()), (PIECE_BYTES, BUDGET - PIECE_BYTES));
    drop((body, first));
    assert_eq!(answers.bytes_in_flight(), BUDGET);
    drop(second);
    assert_eq!(answers.bytes_in_flight(), 0);
    assert!(hold(&answers, 10 * BUDGET, &hangup).is_some(), "alone, an answer may have any size");
}

#[tokio::test(start_paused = true)]
async fn over_the_budget_the_slowest_reader_is_hung_up_on() {
    let answers = answers();
    let (slow, fast) = (Hangup::default(), Hangup::default());
    let _slow_held = hold(&answers, BUDGET / 2, &slow).expect("there is room");
    let fast_held = hold(&answers, BUDGET / 2, &fast).expect("there is room");
    fast_held.left.store(100, Ordering::Relaxed);
    assert!(hold(&answers, BUDGET / 2, &Hangup::default()).is_none(), "nobody is slow yet");
    tokio::time::advance(YOUNG).await;
    let third = hold(&answers, BUDGET / 2, &Hangup::default()).expect("the slow one makes room");
    assert!(is_hung_up_on(&slow).await);
    assert!(!is_hung_up_on(&fast).await);
    drop(third);
    let _whole = hold(&answers, BUDGET + 1, &Hangup::default()).expect("all make room");
    assert!(is_hung_up_on(&fast).await);
    assert_eq!(answers.bytes_in_flight(), BUDGET + 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_more_than_a_share_while_they_hold_any() {
    let answers = answers();
    let (alice, bob) = (Receiver::User(UserNid(1)), Receiver::Network(None));
    let share = BUDGET / SHARES;
    let slow = Hangup::default();
    let large = answers.hold(2 * share, alice, &slow).expect("it may be larger than a share");
    let _small = answers.hold(1, alice, &Hangup::default()).expect("there is room for everyone");
    let _bobs = answers.hold(4 * share, bob, &Hangup::default()).expect("they have no other");
    assert!(answers.hold(1, alice, &Hangup::default()).is_none(), "nothing of theirs is slow yet");
    tokio::time::advance(YOUNG).await;
    let _next = answers.hold(share, alice, &Hangup::default()).expect("their own slow one makes room");
    assert!(is_hung_up_on(&slow).await);
    drop(large);
    assert_eq!(answers.bytes_in_flight(), 5 * share);
    assert_eq!(lock(&answers.way).shares.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_hung_up_on_after_the_grace() {
    let answers = answers();
    let (stalled, steady) = (Hangup::default(), Hangup::default());
    let _stalled_held = hold(&answers, 1000, &stalled).expect("there is room");
    let steady_held = hold(&answers, 90 << 10, &steady).expect("there is room");
    let watching = tokio::spawn({
        let answers = Arc::clone(&answers);
        async move { answers.watch().await }
    });
    for _ in 0..GRACE.as_secs() / LOOK_EVERY.as_secs() {
        tokio::time::sleep(LOOK_EVERY).await;
        steady_held.left.fetch_sub(earned_bytes(LOOK_EVERY) / 4, Ordering::Relaxed);
    }
    assert!(is_hung_up_on(&stalled).await);
    assert!(!is_hung_up_on(&steady).await);
    watching.abort();
}

fn earned_bytes(time: Duration) -> usize {
    (time.as_secs_f64() / earned(1).as_secs_f64()) as usize
}
