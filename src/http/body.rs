//! Reads request bodies, with limits on their size, their slowness, and the memory of all of them together.
//!
//! Promises: a body that was cut off is an error, and no handler sees it; before a caller is authenticated we hold at most
//! [`STRANGER_BYTES`] of its body; a client that stops sending gets an error; all large bodies together hold bounded memory,
//! and so do all small bodies that have not fully arrived, except that each sender may always have [`ALWAYS_BYTES`] of
//! these. No sender has more than a share. A small body that has arrived costs nothing.
//!
//! Once a body has arrived it is parsed: [`parsed`] bounds that memory.

mod parsed;
mod pool;

use std::{future::poll_fn, net::IpAddr, pin::Pin, task::Poll, time::Duration};

use axum::{body::Body, http::StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use ruma::api::error::ErrorKind;
use tokio::time::Instant;

use self::parsed::ParsedBodies;
pub use self::parsed::ParsedBody;
pub(crate) use self::parsed::{FREE_BYTES, too_many_parts};
use self::pool::Pool;
use super::ApiError;
use crate::{config::Limits, network::network, store::UserNid};

/// The maximum body of a request without a token: a login or a registration has a few hundred bytes. Also the size up
/// to which a body does not count as large.
const STRANGER_BYTES: usize = 64 << 10;

/// The minimum rate at which a client may send for ever, as with answers. Each byte earns its part of a second.
const BYTES_PER_SECOND: u32 = 4 * 1024;

/// The budget for all large bodies of users and application services. Those of other servers have another budget of the
/// same size: their sender is unknown until the whole body is read, and they must not take the users' memory. Strangers
/// send no large bodies.
const LARGE_BYTES: usize = 128 << 20;

/// The share of one user, or of one network, in the budget for large bodies. A client that uploads one body after the
/// other needs memory for only one.
const SHARE_BYTES: usize = 16 << 20;

/// The budget for all small bodies of users and application services that have not fully arrived. Those of other
/// servers and those of strangers have budgets of the same size, because these can be filled without an account.
const SMALL_BYTES: usize = 64 << 20;

/// The share of one user, or of one network, in the budget for small bodies: five hundred bodies of which no byte has
/// arrived.
const SMALL_SHARE_BYTES: usize = 2 << 20;

/// The minimum cost of a body that we wait for, because its request waits in memory too.
const WAITING_BYTES: usize = 4 << 10;

/// The amount that every sender may use even when the budget for small bodies is used up: over HTTP/1 we wait a moment
/// for nearly every body. A client with more addresses also has more connections, and those cost us more.
const ALWAYS_BYTES: usize = 4 * WAITING_BYTES;

/// The time after which a request that was refused for lack of memory may be retried.
const RETRY: Duration = Duration::from_secs(1);

/// The sender of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// An unauthenticated caller.
    Stranger(Option<IpAddr>),
    User(UserNid),
    Appservice,
    /// A caller that claims to be another server.
    Unproven(Option<IpAddr>),
}

/// The memory held at the moment by bodies that are being received, or that a handler works on.
pub struct BodyBudget {
    max_bytes: usize,
    stall_time: Duration,
    large: Pool,
    small: Pool,
    parsed: ParsedBodies,
}

/// The memory held by one body, until this is dropped.
#[must_use]
pub struct HeldBody<'a> {
    budget: &'a BodyBudget,
    sender: Sender,
    large_bytes: usize,
    small_bytes: usize,
}

impl BodyBudget {
    pub fn new(limits: &Limits) -> Self {
        let max_bytes = limits.request_bytes.bytes();
        Self {
            max_bytes,
            stall_time: limits.request_time.duration(),
            // The factors let several users send a body of the maximum size at a time.
            large: Pool::new(
                LARGE_BYTES.max(max_bytes.saturating_mul(8)),
                SHARE_BYTES.max(max_bytes.saturating_mul(2)),
                0,
            ),
            small: Pool::new(SMALL_BYTES, SMALL_SHARE_BYTES, ALWAYS_BYTES),
            parsed: ParsedBodies::new(limits),
        }
    }

    /// Reads the body of a request from `sender`, as far as the sender is known before the body is read.
    ///
    /// # Errors
    /// `413`, `408` or `400` for a fault of the client, `429` or `503` if there is no memory for the body at the
    /// moment.
    pub(crate) async fn read(&self, body: Body, sender: Sender) -> Result<(Bytes, HeldBody<'_>), ApiError> {
        let (sender, max_bytes) = match sender {
            Sender::Stranger(address) => (Sender::Stranger(address.map(network)), STRANGER_BYTES.min(self.max_bytes)),
            Sender::Unproven(address) => (Sender::Unproven(address.map(network)), self.max_bytes),
            known => (known, self.max_bytes),
        };
        let mut held = HeldBody { budget: self, sender, large_bytes: 0, small_bytes: 0 };
        let body = read(body, max_bytes, self.stall_time, Some(&mut held)).await?;
        held.release_small();
        Ok((body, held))
    }

    /// The number of the user's requests that hold memory for a parsed body or wait for it.
    pub fn parsed_bodies(&self, user: UserNid) -> usize {
        self.parsed.asking(Sender::User(user))
    }
}

impl HeldBody<'_> {
    /// Reserves memory for the parsed form of a body that has arrived, for as long as its handler runs. `None` if it takes
    /// little. Waits for the memory, and counts as a body that is received meanwhile.
    ///
    /// # Errors
    /// `413` for a body that takes more than a sender's share, `429` or `503` if the memory is not free in time.
    pub(crate) async fn parse(
        &mut self,
        body_bytes: usize,
        parsed_bytes: usize,
    ) -> Result<Option<ParsedBody>, ApiError> {
        if parsed_bytes <= FREE_BYTES {
            return Ok(None);
        }
        let (budget, sender, is_large) = (&self.budget.parsed, self.sender, self.large_bytes > 0);
        if let Some(free) = budget.try_take(sender, is_large, parsed_bytes)? {
            return Ok(Some(free));
        }
        self.wait_with(body_bytes)?;
        // Boxed, because few requests wait and all would need its space.
        let part = Box::pin(budget.take(sender, is_large, parsed_bytes)).await;
        self.release_small();
        part.map(Some)
    }

    /// Reserves memory for a body of this many bytes.
    fn grow_to(&mut self, bytes: usize) -> Result<(), ApiError> {
        if bytes <= STRANGER_BYTES.max(self.large_bytes) {
            return Ok(());
        }
        self.budget.large.take(self.sender, bytes - self.large_bytes)?;
        self.large_bytes = bytes;
        self.release_small();
        Ok(())
    }

    /// Reserves memory for a body that waits for its rest, with this many bytes arrived.
    fn wait_with(&mut self, bytes: usize) -> Result<(), ApiError> {
        let bytes = bytes.max(WAITING_BYTES);
        if self.large_bytes > 0 || bytes <= self.small_bytes {
            return Ok(());
        }
        self.budget.small.take(self.sender, bytes - self.small_bytes)?;
        self.small_bytes = bytes;
        Ok(())
    }

    fn release_small(&mut self) {
        self.budget.small.give_back(self.sender, std::mem::take(&mut self.small_bytes));
    }
}

impl Drop for HeldBody<'_> {
    fn drop(&mut self) {
        self.release_small();
        self.budget.large.give_back(self.sender, self.large_bytes);
    }
}

/// Reads the whole body, at most `max_bytes` of it. The client may fall behind for `stall_time`.
///
/// # Errors
/// As [`BodyBudget::read`], without those for lack of memory.
pub(crate) async fn read_body(body: Body, max_bytes: usize, stall_time: Duration) -> Result<Bytes, ApiError> {
    read(body, max_bytes, stall_time, None).await
}

/// Reads a body. If it counts against a budget, reserves memory before the body grows or is waited for.
async fn read(
    mut body: Body,
    max_bytes: usize,
    stall_time: Duration,
    mut held: Option<&mut HeldBody<'_>>,
) -> Result<Bytes, ApiError> {
    let too_large = || Err(ApiError::too_large(format!("The request is larger than {max_bytes} bytes.")));
    // A body that announces too large a size is refused before it arrives.
    if body.size_hint().lower() > max_bytes as u64 {
        return too_large();
    }
    let announced_bytes = body.size_hint().exact();
    let mut deadline = Instant::now() + stall_time;
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let is_complete = body.is_end_stream();
        let mut frame = body.frame();
        let at_once = poll_fn(|cx| Poll::Ready(Pin::new(&mut frame).poll(cx))).await;
        let frame = match at_once {
            Poll::Ready(frame) => Ok(frame),
            Poll::Pending => {
                if let Some(held) = &mut held {
                    held.wait_with(first.len() + rest.len())?;
                }
                if !is_complete {
                    // Otherwise a few bytes would keep the whole buffer that they arrived in.
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                tokio::time::timeout_at(deadline, frame).await
            }
        };
        let frame = match frame {
            Ok(None) if is_whole(&body, announced_bytes, first.len() + rest.len()) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(None | Some(Err(_))) => {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::NotJson, "The request ended too early."));
            }
            Err(_) => {
                let message = "The request took too long to arrive.";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, ErrorKind::Unknown, message));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > max_bytes {
            return too_large();
        }
        if let Some(held) = &mut held {
            held.grow_to(length)?;
        }
        let earned = Duration::from_secs(1).mul_f64(data.len() as f64 / f64::from(BYTES_PER_SECOND));
        deadline = (deadline + earned).min(Instant::now() + stall_time);
        // Most bodies come in one piece, which is not copied.
        if length == data.len() {
            first = data;
        } else {
            rest.reserve(data.len() + first.len());
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// Returns whether a body without more frames has arrived as a whole. hyper takes a stream of HTTP/2 that its client resets
/// with `NO_ERROR` for one that has ended.
fn is_whole(body: &Body, announced_bytes: Option<u64>, read_bytes: usize) -> bool {
    body.is_end_stream() && announced_bytes.is_none_or(|announced| announced == read_bytes as u64)
}

#[cfg(test)]
mod tests;
