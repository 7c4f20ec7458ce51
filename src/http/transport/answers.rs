//! Answers in flight: written, but not yet read by their clients.
//!
//! Promises: all answers in flight together hold no more than a budget, whatever clients do. Once half of it is used,
//! the answers of one receiver hold no more than a share. Beyond either limit we hang up on the slowest reader, and
//! beyond the budget also on a fast reader with more than a share. If there is no such reader, a new answer is refused.
//! Small answers have a part of the budget that large ones cannot use. We hang up on an HTTP/2 client that opens no
//! window for an answer, as on one that does not read its socket ([`Pace`](super::Pace)). Next: [`Way`] for which
//! answers make room, and when.

mod way;

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};

use self::way::{LOOK_EVERY, Way};
use crate::store::{UserNid, ids::lock};

/// The budget if the configuration sets none.
pub(super) const DEFAULT_BUDGET_BYTES: usize = 256 << 20;

/// The maximum size of a small answer. Most answers are small: an ordinary `/sync`, and the requests of a client's
/// start.
pub(in crate::http) const SMALL_BYTES: usize = 16 << 10;

/// The part of the budget that is reserved for small answers, as a divisor: by default a thousand of the largest.
const SMALL_PART: usize = 16;

/// The bytes handed to hyper at once. hyper asks for more once these are being sent, which shows us the progress.
const PIECE_BYTES: usize = 64 << 10;

/// The receiver of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::http) enum Receiver {
    User(UserNid),
    /// An unauthenticated client, identified by its network.
    Network(Option<IpAddr>),
}

/// The authenticated user of a request, kept in its extensions, because an answer does not name its user.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReceivingUser(Arc<OnceLock<UserNid>>);

impl ReceivingUser {
    pub(crate) fn set(&self, user: UserNid) {
        // Set at most once, because a request is authenticated once.
        let _: Result<(), UserNid> = self.0.set(user);
    }

    /// Returns the user, or else the network.
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

/// All answers in flight.
#[derive(Debug)]
pub struct Answers {
    large: Arc<Mutex<Way>>,
    /// The part for answers of [`SMALL_BYTES`] or less; they may also use the part for large answers while it has room.
    small: Arc<Mutex<Way>>,
}

/// The room that an answer takes of the budget, until this and all pieces of the answer are dropped.
#[derive(Debug)]
pub(in crate::http) struct Held {
    way: Arc<Mutex<Way>>,
    id: u64,
    left: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.way).end(self.id);
    }
}

impl Answers {
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        let small_bytes = budget_bytes / SMALL_PART;
        Self::with_parts(budget_bytes - small_bytes, small_bytes)
    }

    fn with_parts(large_bytes: usize, small_bytes: usize) -> Self {
        let way = |bytes| Arc::new(Mutex::new(Way::new(bytes)));
        Self { large: way(large_bytes), small: way(small_bytes) }
    }

    /// Reserves room for an answer. Returns `None` if there is none and we may not hang up on any client for it. An
    /// answer that is larger than the whole part for large answers is sent only with no other large answer beside it.
    pub(in crate::http) fn hold(&self, bytes: usize, receiver: Receiver, hangup: &Hangup) -> Option<Held> {
        let ways: &[_] = if bytes <= SMALL_BYTES { &[&self.small, &self.large] } else { &[&self.large] };
        // We hang up on no client while the other part has room.
        [false, true]
            .into_iter()
            .find_map(|may_hang_up| ways.iter().find_map(|way| Held::new(way, bytes, receiver, hangup, may_hang_up)))
    }

    /// The bytes that all answers in flight hold.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        [&self.large, &self.small].map(|way| lock(way).bytes()).iter().sum()
    }

    /// Checks the progress of answers regularly, for as long as it is polled.
    pub async fn watch(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look();
        }
    }

    fn look(&self) {
        for way in [&self.large, &self.small] {
            lock(way).look(Instant::now());
        }
    }
}

impl Held {
    fn new(
        way: &Arc<Mutex<Way>>,
        bytes: usize,
        receiver: Receiver,
        hangup: &Hangup,
        may_hang_up: bool,
    ) -> Option<Self> {
        let (id, left) = lock(way).hold(bytes, receiver, hangup, may_hang_up)?;
        Some(Self { way: Arc::clone(way), id, left })
    }

    /// Reduces the reserved size, after the answer was compressed.
    pub(in crate::http) fn shrink_to(&self, bytes: usize) {
        lock(&self.way).shrink(self.id, bytes);
    }

    /// Returns the body of the answer, which keeps its room until it is read.
    pub(in crate::http) fn body(self, bytes: Bytes) -> Body {
        Body::new(HeldBody { bytes, held: Arc::new(self) })
    }
}

/// A body that is sent in pieces.
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
mod tests;
