//! Bodies that arrive in pieces, on a paused clock.

use std::{convert::Infallible, sync::Arc, task::Context};

use axum::response::IntoResponse as _;
use hyper::body::{Frame, SizeHint};
use tokio::{task::JoinSet, time::Sleep};

use super::*;
use crate::store::ids::lock;

/// The body of a client that sends pieces of one size, each after a pause. After another pause it ends, or nothing more
/// comes.
struct Dripping {
    pieces: usize,
    ends: bool,
    has_ended: bool,
    size_bytes: usize,
    pause: Pin<Box<Sleep>>,
    pause_time: Duration,
}

impl Dripping {
    fn body(pieces: usize, size_bytes: usize, pause_time: Duration) -> Body {
        Body::new(Self::new(pieces, size_bytes, pause_time))
    }

    fn ending_body(pieces: usize, size_bytes: usize, pause_time: Duration) -> Body {
        Body::new(Self { ends: true, ..Self::new(pieces, size_bytes, pause_time) })
    }

    fn new(pieces: usize, size_bytes: usize, pause_time: Duration) -> Self {
        let pause = Box::pin(tokio::time::sleep(pause_time));
        Self { pieces, ends: false, has_ended: false, size_bytes, pause, pause_time }
    }
}

impl hyper::body::Body for Dripping {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let nothing_comes = self.pieces == 0 && !self.ends;
        if nothing_comes || self.pause.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.pieces == 0 {
            self.has_ended = true;
            return Poll::Ready(None);
        }
        let next = Instant::now() + self.pause_time;
        self.pause.as_mut().reset(next);
        self.pieces -= 1;
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; self.size_bytes].into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// A body of one piece, after which no more frames come, at its end or not.
struct OnePiece {
    piece: Option<Bytes>,
    is_cut: bool,
    announced_bytes: Option<u64>,
}

impl hyper::body::Body for OnePiece {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.piece.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_none() && !self.is_cut
    }

    fn size_hint(&self) -> SizeHint {
        self.announced_bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

pub(super) fn status(refused: ApiError) -> u16 {
    refused.into_response().status().as_u16()
}

const STALL: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let began = Instant::now();
    let refused = read_body(Dripping::body(0, 0, STALL), 10, STALL).await.expect_err("nothing came");
    assert_eq!((status(refused), began.elapsed()), (408, STALL));
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_waited_for_and_a_trickling_one_is_not() {
    let second = Duration::from_secs(1);
    let steady = Dripping::body(300, BYTES_PER_SECOND as usize, second);
    let began = Instant::now();
    assert_eq!(status(read_body(steady, 2 << 20, STALL).await.expect_err("it does not end")), 408);
    assert_eq!(began.elapsed(), 300 * second + STALL, "only after it stops");
    let began = Instant::now();
    let trickling = Dripping::body(1000, 10, second);
    assert_eq!(status(read_body(trickling, 2 << 20, STALL).await.expect_err("it is too slow")), 408);
    assert!(began.elapsed() < STALL + second, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_read_is_what_was_sent_and_no_more_than_the_limit() {
    assert_eq!(read_body(Body::from("hello"), 5, STALL).await.expect("it fits"), "hello");
    assert_eq!(read_body(Body::empty(), 5, STALL).await.expect("it fits"), "");
    assert_eq!(status(read_body(Body::from("hello!"), 5, STALL).await.expect_err("too large")), 413);
    let pieces = Dripping::body(3, 2, Duration::ZERO);
    assert_eq!(status(read_body(pieces, 5, STALL).await.expect_err("too large")), 413);
}

#[tokio::test]
async fn a_body_that_was_cut_off_is_refused() {
    let read = async |is_cut, announced_bytes| {
        let body = OnePiece { piece: Some(Bytes::from_static(b"{}")), is_cut, announced_bytes };
        read_body(Body::new(body), 10, STALL).await.map_err(status)
    };
    for announced_bytes in [None, Some(2)] {
        assert_eq!(read(false, announced_bytes).await, Ok(Bytes::from_static(b"{}")));
        assert_eq!(read(true, announced_bytes).await, Err(400));
    }
    for announced_bytes in [1, 3] {
        assert_eq!(read(false, Some(announced_bytes)).await, Err(400), "{announced_bytes} bytes were announced");
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_send_little_and_nobody_holds_more_than_a_share() {
    let budget = BodyBudget::new(&Limits::default());
    let megabyte = || Body::from(vec![b'x'; 1 << 20]);
    let small = || Body::from(vec![b'x'; STRANGER_BYTES]);
    let refused = async |body, sender| status(budget.read(body, sender).await.err().expect("it is refused"));
    assert_eq!(refused(megabyte(), Sender::Stranger(None)).await, 413);
    let mut held = Vec::new();
    for _ in 0..SHARE_BYTES >> 20 {
        held.push(budget.read(megabyte(), Sender::User(UserNid(1))).await.expect("there is room"));
    }
    assert_eq!(refused(megabyte(), Sender::User(UserNid(1))).await, 429);
    let _small = budget.read(small(), Sender::User(UserNid(1))).await.expect("a small one takes no room");
    for user in 2.. {
        if held.len() << 20 == LARGE_BYTES {
            break;
        }
        for _ in 0..SHARE_BYTES >> 20 {
            held.push(budget.read(megabyte(), Sender::User(UserNid(user))).await.expect("there is room"));
        }
    }
    assert_eq!(refused(megabyte(), Sender::User(UserNid(99))).await, 503);
    held.push(budget.read(megabyte(), Sender::Unproven(None)).await.expect("servers have room of their own"));
    held.push(budget.read(small(), Sender::Stranger(None)).await.expect("and logging in needs none"));
    drop(held);
    assert_nothing_is_held(&budget);
}

pub(super) fn assert_nothing_is_held(budget: &BodyBudget) {
    for pool in [&budget.large, &budget.small] {
        let left = lock(&pool.held);
        assert_eq!((left.of_known, left.of_strangers, left.of_unproven, left.shares.len()), (0, 0, 0, 0));
    }
    assert_eq!(budget.parsed.holders(), 0);
}

fn stranger(number: usize) -> Sender {
    Sender::Stranger(Some([10, 0, 0, u8::try_from(number).expect("few")].into()))
}

/// The number of small bodies of the largest size that fit in a share.
pub(super) const IN_SHARE: usize = SMALL_SHARE_BYTES / STRANGER_BYTES;
const SHARES: usize = SMALL_BYTES / SMALL_SHARE_BYTES;

fn endless(bytes: usize) -> Body {
    Dripping::body(1, bytes, Duration::ZERO)
}

/// Starts bodies of one piece each that do not end, as an HTTP/2 client can send a hundred on each connection. They
/// come from as many strangers as together fill the strangers' budget. Each body yields the status of its error.
async fn fill_with_strangers(budget: &Arc<BodyBudget>) -> JoinSet<Option<u16>> {
    let mut waiting = JoinSet::new();
    let mut began = 0;
    for number in 0..SHARES {
        for _ in 0..IN_SHARE {
            let budget = Arc::clone(budget);
            let body = endless(STRANGER_BYTES);
            waiting.spawn(async move { budget.read(body, stranger(number)).await.err().map(status) });
        }
        began += IN_SHARE * STRANGER_BYTES;
        while lock(&budget.small.held).shares.values().sum::<usize>() < began {
            // Yields on the paused clock until every body has taken its piece.
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
    waiting
}

#[tokio::test(start_paused = true)]
async fn small_bodies_that_do_not_end_are_bounded_and_whole_ones_pass() {
    let budget = Arc::new(BodyBudget::new(&Limits::default()));
    let refused = async |body, sender| status(budget.read(body, sender).await.err().expect("it is refused"));
    let mut waiting = fill_with_strangers(&budget).await;
    assert_eq!(refused(endless(10), stranger(0)).await, 429);
    assert_eq!(refused(endless(STRANGER_BYTES), stranger(SHARES)).await, 503);
    let whole = || Body::from(vec![b'x'; STRANGER_BYTES]);
    for sender in [stranger(0), stranger(SHARES), Sender::User(UserNid(1)), Sender::Unproven(None)] {
        let (body, _held) = budget.read(whole(), sender).await.expect("what is there takes no room");
        assert_eq!(body.len(), STRANGER_BYTES);
    }
    // A small waiting body always gets memory, even when others use up the budget.
    assert_eq!(refused(endless(10), stranger(SHARES)).await, 408);
    while let Some(ended) = waiting.join_next().await {
        assert_eq!(ended.expect("it does not panic"), Some(408));
    }
    assert_nothing_is_held(&budget);
}

#[tokio::test(start_paused = true)]
async fn strangers_take_no_room_of_those_who_are_known() {
    const PAUSES_AT: usize = 40 << 10;
    let budget = Arc::new(BodyBudget::new(&Limits::default()));
    let _waiting = fill_with_strangers(&budget).await;
    for sender in [Sender::User(UserNid(1)), Sender::Appservice, Sender::Unproven(None)] {
        let pausing = Dripping::ending_body(1, PAUSES_AT, Duration::from_secs(1));
        let (body, _held) = budget.read(pausing, sender).await.expect("they have room of their own");
        assert_eq!(body.len(), PAUSES_AT, "{sender:?}");
    }
    let pausing = Dripping::ending_body(1, PAUSES_AT, Duration::from_secs(1));
    let refused = budget.read(pausing, stranger(SHARES)).await.err().expect("it is refused");
    assert_eq!(status(refused), 503, "strangers have no more");
}
