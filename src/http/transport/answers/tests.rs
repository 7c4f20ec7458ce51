//! Tests of the rules with plain numbers: answers with only a size and the bytes left, and a paused clock.

use std::{sync::atomic::AtomicI64, time::Duration};

use http_body_util::BodyExt as _;

use super::{
    way::{LATEST_END, LONG, SHARES, YOUNG},
    *,
};
use crate::http::transport::pace::{GRACE, earned};

/// The budget for large answers. A share is two small answers.
const BUDGET: usize = SHARES * 2 * SMALL_BYTES;

/// Holds an answer for a new receiver each time, for tests that are not about shares.
fn hold(answers: &Answers, bytes: usize, hangup: &Hangup) -> Option<Held> {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    answers.hold(bytes, Receiver::User(UserNid(NEXT.fetch_add(1, Ordering::Relaxed))), hangup)
}

fn answers() -> Arc<Answers> {
    Arc::new(Answers::with_parts(BUDGET, SMALL_BYTES))
}

/// Simulates that these answers are read at this rate for some time.
async fn read<'a>(
    answers: &Answers,
    held: impl IntoIterator<Item = &'a Held> + Clone,
    bytes_per_second: usize,
    time: Duration,
) {
    for _ in 0..time.as_secs() / LOOK_EVERY.as_secs() {
        tokio::time::advance(LOOK_EVERY).await;
        for held in held.clone() {
            held.left.fetch_sub(bytes_per_second * LOOK_EVERY.as_secs() as usize, Ordering::Relaxed);
        }
        answers.look();
    }
}

async fn is_hung_up_on(hangup: &Hangup) -> bool {
    tokio::time::timeout(Duration::ZERO, hangup.wanted()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_answer_costs_the_budget_until_its_last_piece_is_dropped() {
    let (answers, hangup) = (answers(), Hangup::default());
    let mut body = hold(&answers, BUDGET, &hangup).expect("there is room").body(vec![7; BUDGET].into());
    assert!(hold(&answers, SMALL_BYTES + 1, &hangup).is_none(), "nobody is slow yet");
    let mut pieces = Vec::new();
    while let Some(piece) = body.frame().await {
        pieces.push(piece.expect("no error").into_data().expect("data"));
    }
    assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE_BYTES; BUDGET / PIECE_BYTES]);
    let last = pieces.pop();
    drop((body, pieces));
    assert_eq!(answers.bytes_in_flight(), BUDGET);
    drop(last);
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
    let _other = answers.hold(SMALL_BYTES + 1, alice, &Hangup::default()).expect("there is room for everyone");
    let _bobs = answers.hold(4 * share, bob, &Hangup::default()).expect("they have no other");
    assert!(answers.hold(share, alice, &Hangup::default()).is_none(), "nothing of theirs is slow yet");
    tokio::time::advance(YOUNG).await;
    let _next = answers.hold(share, alice, &Hangup::default()).expect("their own slow one makes room");
    assert!(is_hung_up_on(&slow).await);
    drop(large);
    assert_eq!(answers.bytes_in_flight(), 5 * share);
    assert_eq!(lock(&answers.large).shares.len(), 2);
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

/// A reading rate a little above the limit of a fast reader.
const STEADY: usize = 70 << 10;

#[tokio::test(start_paused = true)]
async fn more_than_a_share_is_not_kept_from_others_however_fast_it_is_read() {
    let answers = Answers::new(DEFAULT_BUDGET_BYTES);
    let (whole, next) = (Hangup::default(), Hangup::default());
    let whole_held = hold(&answers, DEFAULT_BUDGET_BYTES + (44 << 20), &whole).expect("alone, it has room");
    read(&answers, [&whole_held], STEADY, LONG / 2).await;
    let _next = hold(&answers, 1 << 20, &next).expect("the large one makes room");
    assert!(is_hung_up_on(&whole).await);
    assert!(!is_hung_up_on(&next).await);
    assert_eq!(answers.bytes_in_flight(), 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn nobody_loses_their_share_to_others_while_they_read_fast() {
    let answers = Answers::new(DEFAULT_BUDGET_BYTES);
    let half = lock(&answers.large).budget_bytes / SHARES / 2;
    let greedy = [(); 3].map(|()| Hangup::default());
    let modest = Hangup::default();
    let mut held: Vec<_> = greedy
        .iter()
        .map(|hangup| answers.hold(half, Receiver::User(UserNid(-1)), hangup).expect("there is room"))
        .collect();
    for shares in [2, 2, 2, 2, 2, 2, 1] {
        held.push(hold(&answers, shares * half, &modest).expect("there is room"));
    }
    read(&answers, &held, STEADY, 2 * LOOK_EVERY).await;
    assert!(hold(&answers, 2 * half, &Hangup::default()).is_none(), "only half of that is more than a share");
    let _next = hold(&answers, half, &Hangup::default()).expect("one makes room");
    let mut hung_up = 0;
    for hangup in &greedy {
        hung_up += usize::from(is_hung_up_on(hangup).await);
    }
    assert_eq!(hung_up, 1);
    assert!(!is_hung_up_on(&modest).await);
}

#[tokio::test(start_paused = true)]
async fn fast_readers_make_room_too_once_they_had_it_for_long() {
    let answers = Answers::new(DEFAULT_BUDGET_BYTES);
    let share = lock(&answers.large).budget_bytes / SHARES;
    let held: Vec<_> = (0..SHARES).map(|_| hold(&answers, share, &Hangup::default()).expect("there is room")).collect();
    read(&answers, &held, STEADY, LONG - LOOK_EVERY).await;
    assert!(hold(&answers, 1 << 20, &Hangup::default()).is_none(), "they read fast");
    read(&answers, &held, STEADY, LOOK_EVERY).await;
    let _next = hold(&answers, 1 << 20, &Hangup::default()).expect("one makes room");
    assert_eq!(answers.bytes_in_flight(), (SHARES - 1) * share + (1 << 20));
}

#[tokio::test(start_paused = true)]
async fn no_answer_stays_for_ever_and_a_slow_one_has_long() {
    let answers = Answers::new(DEFAULT_BUDGET_BYTES);
    let hangup = Hangup::default();
    let slow = hold(&answers, 100 << 20, &hangup).expect("there is room");
    let steady = earned_bytes(Duration::from_secs(2));
    read(&answers, [&slow], steady, LATEST_END - LOOK_EVERY).await;
    assert!(!is_hung_up_on(&hangup).await);
    read(&answers, [&slow], steady, LOOK_EVERY).await;
    assert!(is_hung_up_on(&hangup).await);
    assert_eq!(answers.bytes_in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn small_answers_have_room_that_no_large_one_takes() {
    let answers = Answers::new(DEFAULT_BUDGET_BYTES);
    let (whole, small) = (Hangup::default(), Hangup::default());
    let whole_held = hold(&answers, 2 * DEFAULT_BUDGET_BYTES, &whole).expect("alone, it has room");
    assert!(hold(&answers, SMALL_BYTES + 1, &small).is_none(), "it is young");
    let room = lock(&answers.small).budget_bytes / SMALL_BYTES;
    let mut held: Vec<_> = (0..room).map(|_| hold(&answers, SMALL_BYTES, &small).expect("small has room")).collect();
    assert!(hold(&answers, SMALL_BYTES, &small).is_none(), "that is bounded too");
    read(&answers, [&whole_held], STEADY, YOUNG).await;
    held.push(hold(&answers, SMALL_BYTES, &Hangup::default()).expect("one that is not taken makes room"));
    assert!(is_hung_up_on(&small).await);
    assert!(!is_hung_up_on(&whole).await);
    drop(whole_held);
    let other = Hangup::default();
    held.extend((0..room).map(|_| hold(&answers, SMALL_BYTES, &other).expect("the room of large ones is free")));
    assert_eq!(answers.bytes_in_flight(), 2 * room * SMALL_BYTES, "nobody had to make room");
}

fn earned_bytes(time: Duration) -> usize {
    (time.as_secs_f64() / earned(1).as_secs_f64()) as usize
}
