//! Parsed bodies that wait for memory, on a paused clock.

use axum::body::Body;
use tokio::task::JoinSet;

use super::*;
use crate::{
    config::ByteSize,
    http::body::{
        BodyBudget, HeldBody, STRANGER_BYTES,
        tests::{IN_SHARE, assert_nothing_is_held, status},
    },
    store::UserNid,
};

/// The body of a user, which has arrived.
async fn arrived(budget: &BodyBudget, user: i64, bytes: usize) -> HeldBody<'_> {
    let (_, held) =
        budget.read(Body::from(vec![b'x'; bytes]), Sender::User(UserNid(user))).await.expect("there is room");
    held
}

const MEGABYTE: usize = 1 << 20;
const LARGE: usize = MEGABYTE;

#[tokio::test(start_paused = true)]
async fn a_parsed_body_holds_its_memory_until_its_handler_ends() {
    let budget = BodyBudget::new(&Limits::default());
    let mut first = arrived(&budget, 1, LARGE).await;
    let handled = first.parse(LARGE, 20 * MEGABYTE).await.expect("free").expect("it takes much");
    drop(first);
    let mut second = arrived(&budget, 1, LARGE).await;
    let began = Instant::now();
    assert_eq!(status(second.parse(LARGE, 20 * MEGABYTE).await.expect_err("the first one has the share")), 429);
    assert_eq!(began.elapsed(), WAIT);
    // Others have a share of their own, and so have small bodies.
    let mut other = arrived(&budget, 2, LARGE).await;
    let _other = other.parse(LARGE, 20 * MEGABYTE).await.expect("free");
    let mut small = arrived(&budget, 1, STRANGER_BYTES).await;
    let _small = small.parse(STRANGER_BYTES, MEGABYTE).await.expect("free").expect("it takes much");

    let began = Instant::now();
    let ended = async { drop(handled) };
    let (next, ()) = tokio::join!(second.parse(LARGE, 20 * MEGABYTE), ended);
    assert!(next.expect("the first one has ended").is_some());
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn all_parsed_bodies_together_hold_bounded_memory() {
    let budget = BodyBudget::new(&Limits::default());
    let mut held = Vec::new();
    for user in 0..4 {
        let mut body = arrived(&budget, user, LARGE).await;
        held.push(body.parse(LARGE, 32 * MEGABYTE).await.expect("free"));
    }
    let mut waiting = arrived(&budget, 9, LARGE).await;
    assert_eq!(status(waiting.parse(LARGE, 32 * MEGABYTE).await.expect_err("all is used")), 503);
    let whole = |bytes: usize| Body::from(vec![b'x'; bytes]);
    // Small bodies pass while large ones wait.
    let large = async { waiting.parse(LARGE, 32 * MEGABYTE).await.is_ok() };
    let small = async {
        let (_, mut small) = budget.read(whole(100), Sender::User(UserNid(9))).await.expect("there is room");
        let began = Instant::now();
        assert!(small.parse(100, 100).await.expect("free").is_none(), "it takes little");
        assert!(small.parse(100, MEGABYTE).await.expect("free").is_some());
        assert_eq!(began.elapsed(), Duration::ZERO);
    };
    let (large, ()) = tokio::join!(large, small);
    assert!(!large);
    let (_, mut server) = budget.read(whole(LARGE), Sender::Unproven(None)).await.expect("there is room");
    assert!(server.parse(LARGE, 32 * MEGABYTE).await.expect("servers have room of their own").is_some());
    drop((held, waiting, server));
    assert_nothing_is_held(&budget);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_more_than_a_share_is_refused() {
    let budget = BodyBudget::new(&Limits::default());
    let began = Instant::now();
    let refused = async |bytes, parsed_bytes| {
        let mut body = arrived(&budget, 1, bytes).await;
        status(body.parse(bytes, parsed_bytes).await.expect_err("it takes too much"))
    };
    assert_eq!(refused(LARGE, 33 * MEGABYTE).await, 413);
    assert_eq!(refused(LARGE, usize::MAX).await, 413);
    assert_eq!(refused(STRANGER_BYTES, 9 * MEGABYTE).await, 413);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_nothing_is_held(&budget);
    // With a larger limit for the text, its parsed form may be larger too.
    let limits = Limits { request_bytes: ByteSize::mib(8), ..Limits::default() };
    let budget = BodyBudget::new(&limits);
    let mut backup = arrived(&budget, 1, 8 * MEGABYTE).await;
    assert!(backup.parse(8 * MEGABYTE, 56 * MEGABYTE).await.expect("free").is_some());
}

/// Parses a small body that takes a whole share.
async fn parse_small(budget: &BodyBudget) -> Result<Option<ParsedBody>, ApiError> {
    arrived(budget, 1, STRANGER_BYTES).await.parse(STRANGER_BYTES, 8 * MEGABYTE).await
}

#[tokio::test(start_paused = true)]
async fn small_bodies_that_wait_to_be_parsed_are_bounded() {
    let budget = Arc::new(BodyBudget::new(&Limits::default()));
    let first = parse_small(&budget).await.expect("free");
    let mut waiting = JoinSet::new();
    for _ in 0..IN_SHARE {
        let budget = Arc::clone(&budget);
        waiting.spawn(async move { parse_small(&budget).await.is_ok() });
    }
    while budget.parsed_bodies(UserNid(1)) <= IN_SHARE {
        tokio::task::yield_now().await;
    }
    let began = Instant::now();
    assert_eq!(status(parse_small(&budget).await.expect_err("too many wait")), 429);
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(first);
    while let Some(ended) = waiting.join_next().await {
        assert!(ended.expect("it does not panic"), "each of them comes in turn");
    }
    assert_nothing_is_held(&budget);
}
