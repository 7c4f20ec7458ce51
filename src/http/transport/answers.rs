//! Answers on their way: written, and not yet taken by their clients.
//!
//! Promises: together they hold no more than a budget, whatever clients do, and once half of it is used those of one receiver
//! no more than a share; over either the slowest reader is hung up on, and over the budget also a fast one with more than a
//! share; where there is none of them a new answer is refused. Small answers have a part of the budget that large ones do not
//! get. A client of HTTP/2 that gives no room for an answer is hung up on like one that does not read its socket
//! ([`Pace`](super::Pace)). Next: [`Way`] for who makes room, and when.

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

/// Where the configuration does not say.
pub(super) const DEFAULT_BUDGET_BYTES: usize = 256 << 20;

/// What most answers have: an ordinary `/sync`, and what clients ask at their start.
pub(in crate::http) const SMALL_BYTES: usize = 16 << 10;

/// Small answers have this part of the budget to themselves: a thousand of the largest, where the configuration does not say.
const SMALL_PART: usize = 16;

/// What is handed to hyper at once. It asks for more when this is on its way, which is how progress is seen.
const PIECE_BYTES: usize = 64 << 10;

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
    large: Arc<Mutex<Way>>,
    /// For answers of [`SMALL_BYTES`] or less, which also go where the large ones go while there is room.
    small: Arc<Mutex<Way>>,
}

/// Room that an answer takes of the budget, until this and all pieces of the answer are dropped.
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

    /// Makes room for an answer. `None`: there is none, and nobody can be hung up on for it. An answer that is larger than
    /// all that large ones have goes out without another one of them.
    pub(in crate::http) fn hold(&self, bytes: usize, receiver: Receiver, hangup: &Hangup) -> Option<Held> {
        let ways: &[_] = if bytes <= SMALL_BYTES { &[&self.small, &self.large] } else { &[&self.large] };
        // Nobody is hung up on while there is room in the other part.
        [false, true]
            .into_iter()
            .find_map(|may_hang_up| ways.iter().find_map(|way| Held::new(way, bytes, receiver, hangup, may_hang_up)))
    }

    /// What all answers on their way hold.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        [&self.large, &self.small].map(|way| lock(way).bytes()).iter().sum()
    }

    /// Looks after answers for as long as it is polled.
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

    /// The answer turned out smaller: it was compressed.
    pub(in crate::http) fn shrink_to(&self, bytes: usize) {
        lock(&self.way).shrink(self.id, bytes);
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
mod tests;
