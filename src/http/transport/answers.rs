//! Answers on their way: written, and not yet taken by their clients.
//!
//! Promises: together they hold no more than a budget, whatever clients do, and once half of it is used those of one receiver
//! no more than a share; over either the slowest reader is hung up on, and where nobody is slow a new answer is refused. A
//! client of HTTP/2 that gives no room for an answer is hung up on like one that does not read its socket
//! ([`Pace`](super::Pace)).

use std::{
    collections::HashMap,
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
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
use crate::store::{UserNid, ids::lock};

/// Where the configuration does not say.
pub(super) const DEFAULT_BUDGET_BYTES: usize = 256 << 20;

/// What is handed to hyper at once. It asks for more when this is on its way, which is how progress is seen.
const PIECE_BYTES: usize = 64 << 10;

/// How many receivers fill the budget, once half of it is used. A share is several initial syncs of a large account; one that
/// is larger goes out all the same, while its receiver has no other.
const SHARES: usize = 8;

/// Whoever reads as fast is not hung up on to make room. A large initial sync must come to its end on a slow line.
const FAST_BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

/// An answer is not slow before that: it may have been written this moment.
const YOUNG: Duration = Duration::from_secs(5);

/// How often the progress of all answers is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Who an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) enum Receiver {
    User(UserNid),
    /// Somebody whom we do not know, by their network.
    Network(Option<IpAddr>),
}

/// The user who a request turned out to be of, in its extensions: an answer does not say whose it is.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct ReceivingUser(Arc<OnceLock<UserNid>>);

impl ReceivingUser {
    pub(in crate::http) fn set(&self, user: UserNid) {
        // Once at most: a request is authenticated once.
        let _: Result<(), UserNid> = self.0.set(user);
    }

    /// The user, or else the network.
    pub(in crate::http) fn or_network(&self, network: Option<IpAddr>) -> Receiver {
        self.0.get().map_or(Receiver::Network(network), |user| Receiver::User(*user))
    }
}

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
    shares: HashMap<Receiver, usize>,
    next: u64,
    answers: HashMap<u64, Answer>,
}

#[derive(Debug)]
struct Answer {
    /// What it costs the budget: all of it until the last byte is taken, for so long its memory stays. Zero once it is
    /// given up.
    bytes: usize,
    receiver: Receiver,
    left: Arc<AtomicUsize>,
    since: Instant,
    hangup: Hangup,
    seen_left: usize,
    /// How fast it was taken between the last two looks, once there were two. What the buffers of the system took at the
    /// beginning is no reading.
    recent_bytes_per_second: Option<f64>,
    /// The time that its client may fall behind from now on.
    credit: Duration,
}

impl Answer {
    /// How fast it is taken.
    fn bytes_per_second(&self, now: Instant) -> f64 {
        self.recent_bytes_per_second.unwrap_or_else(|| {
            let taken = self.bytes.saturating_sub(self.left.load(Ordering::Relaxed));
            taken as f64 / (now - self.since).as_secs_f64().max(0.001)
        })
    }

    /// Whether its client is hung up on when room is wanted.
    fn is_slow(&self, now: Instant) -> bool {
        self.bytes > 0 && now - self.since >= YOUNG && self.bytes_per_second(now) < FAST_BYTES_PER_SECOND
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
            way.give_back(answer.receiver, answer.bytes);
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
    pub(in crate::http) fn hold(self: &Arc<Self>, bytes: usize, receiver: Receiver, hangup: &Hangup) -> Option<Held> {
        let now = Instant::now();
        let mut way = lock(&self.way);
        let share = way.shares.get(&receiver).copied().unwrap_or_default();
        let is_half_used = way.bytes + bytes > self.budget_bytes / 2;
        let share_bytes = if is_half_used { self.budget_bytes / SHARES } else { self.budget_bytes };
        let over_share = (share + bytes).saturating_sub(share_bytes).min(share);
        if !way.give_up(over_share, Some(receiver), now) {
            return None;
        }
        let over = (way.bytes + bytes).saturating_sub(self.budget_bytes).min(way.bytes);
        if !way.give_up(over, None, now) {
            return None;
        }
        let (id, left) = (way.next, Arc::new(AtomicUsize::new(bytes)));
        way.next += 1;
        way.bytes += bytes;
        *way.shares.entry(receiver).or_default() += bytes;
        let answer = Answer {
            bytes,
            receiver,
            left: Arc::clone(&left),
            since: now,
            hangup: hangup.clone(),
            seen_left: bytes,
            recent_bytes_per_second: None,
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
            lock(&self.way).look(Instant::now());
        }
    }
}

impl Way {
    /// Gives up the slowest answers, of one receiver or of all, until so many bytes are free. Nothing happens when that is
    /// not enough.
    fn give_up(&mut self, bytes: usize, of: Option<Receiver>, now: Instant) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut slow: Vec<_> = self
            .answers
            .iter()
            .filter(|(_, answer)| of.is_none_or(|receiver| answer.receiver == receiver))
            .filter(|(_, answer)| answer.is_slow(now))
            .map(|(id, answer)| (answer.bytes_per_second(now), *id, answer.bytes))
            .collect();
        slow.sort_by(|(left, ..), (right, ..)| left.total_cmp(right));
        let (mut given_up, mut freed) = (Vec::new(), 0);
        for (_, id, size) in slow {
            if freed >= bytes {
                break;
            }
            given_up.push(id);
            freed += size;
        }
        if freed < bytes {
            return false;
        }
        debug!(answers = given_up.len(), "hung up on the slowest readers to make room");
        for id in given_up {
            self.hang_up_on(id);
        }
        true
    }

    /// Takes back what an answer no longer holds.
    fn give_back(&mut self, receiver: Receiver, bytes: usize) {
        self.bytes -= bytes;
        if let Some(share) = self.shares.get_mut(&receiver) {
            *share -= bytes;
            if *share == 0 {
                self.shares.remove(&receiver);
            }
        }
    }

    /// Looks at the progress of all answers, and hangs up on those who are too far behind.
    fn look(&mut self, now: Instant) {
        let mut stalled = Vec::new();
        for (id, answer) in &mut self.answers {
            let left = answer.left.load(Ordering::Relaxed);
            let taken = answer.seen_left.saturating_sub(left);
            answer.seen_left = left;
            if now - answer.since >= 2 * LOOK_EVERY {
                answer.recent_bytes_per_second = Some(taken as f64 / LOOK_EVERY.as_secs_f64());
            }
            answer.credit = GRACE.min((answer.credit + earned(taken)).saturating_sub(LOOK_EVERY));
            if answer.credit.is_zero() {
                stalled.push(*id);
            }
        }
        for id in stalled {
            debug!("hung up on a client that does not take its answer");
            self.hang_up_on(id);
        }
    }

    fn hang_up_on(&mut self, id: u64) {
        if let Some(answer) = self.answers.get_mut(&id) {
            answer.hangup.hang_up();
            let (receiver, bytes) = (answer.receiver, std::mem::take(&mut answer.bytes));
            self.give_back(receiver, bytes);
        }
    }
}

impl Held {
    /// The answer turned out smaller: it was compressed.
    pub(in crate::http) fn shrink_to(&self, bytes: usize) {
        let mut way = lock(&self.answers.way);
        let Some(answer) = way.answers.get_mut(&self.id).filter(|answer| answer.bytes > bytes) else { return };
        let (receiver, saved) = (answer.receiver, answer.bytes - bytes);
        answer.bytes = bytes;
        answer.seen_left = bytes;
        self.left.store(bytes, Ordering::Relaxed);
        way.give_back(receiver, saved);
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

    /// Each answer of a test that is not about shares is for somebody else.
    fn hold(answers: &Arc<Answers>, bytes: usize, hangup: &Hangup) -> Option<Held> {
        let receiver = Receiver::User(UserNid(i64::try_from(lock(&answers.way).next).expect("few")));
        answers.hold(bytes, receiver, hangup)
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
}
