//! Answers on their way: written, and not yet taken by their clients.
//!
//! Promises: together they hold no more than a budget, whatever clients do; over it the slowest reader is hung up on, and
//! where nobody is slow a new answer is refused. A client of HTTP/2 that gives no room for an answer is hung up on like one
//! that does not read its socket ([`Pace`](super::Pace)).

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};
use tracing::debug;

use super::pace::{GRACE, earned};
use crate::store::ids::lock;

/// Where the configuration does not say.
pub(super) const DEFAULT_BUDGET_BYTES: usize = 256 << 20;

/// What is handed to hyper at once. It asks for more when this is on its way, which is how progress is seen.
const PIECE_BYTES: usize = 64 << 10;

/// An answer is not slow before that: it may have been written this moment.
const YOUNG: Duration = Duration::from_secs(5);

/// How often the progress of all answers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Hangs up on a client. Clones belong to the same connection.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Hangup(Arc<Notify>);

impl Hangup {
    fn hang_up(&self) {
        self.0.notify_one();
    }

    /// Resolves when the connection is to be closed.
    pub(in crate::http) async fn wanted(&self) {
        self.0.notified().await;
    }
}

/// All answers that are on their way.
#[derive(Debug)]
pub struct Answers {
    budget_bytes: usize,
    way: Mutex<Way>,
}

#[derive(Debug, Default)]
struct Way {
    bytes: usize,
    next: u64,
    answers: HashMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    /// What it costs the budget: all of it until the last byte is taken, for so long its memory stays. Zero once it is
    /// given up.
    bytes: usize,
    left: Arc<AtomicUsize>,
    since: Instant,
    hangup: Hangup,
    seen_left: usize,
    /// The time that its client may fall behind from now on.
    credit: Duration,
}

impl Answer {
    /// How fast it is taken.
    fn bytes_per_second(&self, now: Instant) -> f64 {
        let taken = self.bytes.saturating_sub(self.left.load(Ordering::Relaxed));
        taken as f64 / (now - self.since).as_secs_f64().max(0.001)
    }
}

/// Room that an answer takes of the budget, until this and all pieces of the answer are dropped.
#[derive(Debug)]
pub(in crate::http) struct Held {
    answers: Arc<Answers>,
    id: u64,
    left: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut way = lock(&self.answers.way);
        if let Some(answer) = way.answers.remove(&self.id) {
            way.bytes -= answer.bytes;
        }
    }
}

impl Answers {
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, way: Mutex::default() }
    }

    /// Makes room for an answer. `None`: there is none, and nobody is slow enough to be hung up on for it. An answer that
    /// is larger than the whole budget goes out alone.
    pub(in crate::http) fn hold(self: &Arc<Self>, bytes: usize, hangup: &Hangup) -> Option<Held> {
        let now = Instant::now();
        let mut way = lock(&self.way);
        if way.bytes > 0 && way.bytes + bytes > self.budget_bytes && !way.give_up_for(bytes, self.budget_bytes, now) {
            return None;
        }
        let (id, left) = (way.next, Arc::new(AtomicUsize::new(bytes)));
        way.next += 1;
        way.bytes += bytes;
        let answer = Answer {
            bytes,
            left: Arc::clone(&left),
            since: now,
            hangup: hangup.clone(),
            seen_left: bytes,
            credit: GRACE,
        };
        way.answers.insert(id, answer);
        Some(Held { answers: Arc::clone(self), id, left })
    }

    /// What all answers on their way hold.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        lock(&self.way).bytes
    }

    /// Looks after answers for as long as it is polled.
    pub async fn watch(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            lock(&self.way).hang_up_on_stalled();
        }
    }
}

impl Way {
    /// Gives up the slowest answers until `bytes` have room. Nothing happens when that is not enough.
    fn give_up_for(&mut self, bytes: usize, budget_bytes: usize, now: Instant) -> bool {
        let mut slow: Vec<_> = self
            .answers
            .iter()
            .filter(|(_, answer)| answer.bytes > 0 && now - answer.since >= YOUNG)
            .map(|(id, answer)| (answer.bytes_per_second(now), *id, answer.bytes))
            .collect();
        slow.sort_by(|(left, ..), (right, ..)| left.total_cmp(right));
        let over = (self.bytes + bytes).saturating_sub(budget_bytes);
        let (mut given_up, mut freed) = (Vec::new(), 0);
        for (_, id, size) in slow {
            if freed >= over {
                break;
            }
            given_up.push(id);
            freed += size;
        }
        // An answer that is larger than the budget needs the whole of it.
        if freed < over.min(self.bytes) {
            return false;
        }
        for id in &given_up {
            self.give_up(*id);
        }
        debug!(answers = given_up.len(), "hung up on the slowest readers to make room");
        true
    }

    fn hang_up_on_stalled(&mut self) {
        let mut stalled = Vec::new();
        for (id, answer) in &mut self.answers {
            let left = answer.left.load(Ordering::Relaxed);
            let progress = earned(answer.seen_left.saturating_sub(left));
            answer.seen_left = left;
            answer.credit = GRACE.min((answer.credit + progress).saturating_sub(LOOK_EVERY));
            if answer.credit.is_zero() {
                stalled.push(*id);
            }
        }
        for id in stalled {
            debug!("hung up on a client that does not take its answer");
            self.give_up(id);
        }
    }

    fn give_up(&mut self, id: u64) {
        if let Some(answer) = self.answers.get_mut(&id) {
            answer.hangup.hang_up();
            self.bytes -= std::mem::take(&mut answer.bytes);
        }
    }
}

impl Held {
    /// The answer turned out smaller: it was compressed.
    pub(in crate::http) fn shrink_to(&self, bytes: usize) {
        let mut way = lock(&self.answers.way);
        let Some(answer) = way.answers.get_mut(&self.id).filter(|answer| answer.bytes > bytes) else { return };
        let saved = answer.bytes - bytes;
        answer.bytes = bytes;
        answer.seen_left = bytes;
        self.left.store(bytes, Ordering::Relaxed);
        way.bytes -= saved;
    }

    /// The body of the answer, which keeps the room until it is taken.
    pub(in crate::http) fn body(self, bytes: Bytes) -> Body {
        Body::new(HeldBody { bytes, held: Arc::new(self) })
    }
}

/// A body that hands itself out in pieces.
struct HeldBody {
    bytes: Bytes,
    held: Arc<Held>,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.bytes.len().min(PIECE_BYTES);
        let piece = Piece { bytes: self.bytes.split_to(length), held: Arc::clone(&self.held) };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// A piece of an answer. hyper drops it when the socket has taken it.
struct Piece {
    bytes: Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.left.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const BUDGET: usize = 100 << 10;

    fn answers() -> Arc<Answers> {
        Arc::new(Answers::new(BUDGET))
    }

    async fn is_hung_up_on(hangup: &Hangup) -> bool {
        tokio::time::timeout(Duration::ZERO, hangup.wanted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_costs_the_budget_until_its_last_piece_is_dropped() {
        let (answers, hangup) = (answers(), Hangup::default());
        let mut body = answers.hold(BUDGET, &hangup).expect("there is room").body(vec![7; BUDGET].into());
        assert!(answers.hold(1, &hangup).is_none(), "nobody is slow yet");
        let first = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
        let second = body.frame().await.expect("a piece").expect("no error").into_data().expect("data");
        assert_eq!((first.len(), second.len()), (PIECE_BYTES, BUDGET - PIECE_BYTES));
        drop((body, first));
        assert_eq!(answers.bytes_in_flight(), BUDGET);
        drop(second);
        assert_eq!(answers.bytes_in_flight(), 0);
        assert!(answers.hold(10 * BUDGET, &hangup).is_some(), "alone, an answer may have any size");
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_budget_the_slowest_reader_is_hung_up_on() {
        let answers = answers();
        let (slow, fast) = (Hangup::default(), Hangup::default());
        let _slow_held = answers.hold(BUDGET / 2, &slow).expect("there is room");
        let fast_held = answers.hold(BUDGET / 2, &fast).expect("there is room");
        fast_held.left.store(100, Ordering::Relaxed);
        assert!(answers.hold(BUDGET / 2, &Hangup::default()).is_none(), "nobody is slow yet");
        tokio::time::advance(YOUNG).await;
        let third = answers.hold(BUDGET / 2, &Hangup::default()).expect("the slow one makes room");
        assert!(is_hung_up_on(&slow).await);
        assert!(!is_hung_up_on(&fast).await);
        drop(third);
        let _whole = answers.hold(BUDGET + 1, &Hangup::default()).expect("all make room");
        assert!(is_hung_up_on(&fast).await);
        assert_eq!(answers.bytes_in_flight(), BUDGET + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_hung_up_on_after_the_grace() {
        let answers = answers();
        let (stalled, steady) = (Hangup::default(), Hangup::default());
        let _stalled_held = answers.hold(1000, &stalled).expect("there is room");
        let steady_held = answers.hold(90 << 10, &steady).expect("there is room");
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
}
