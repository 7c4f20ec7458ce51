//! The body of an answer, as it comes.
//!
//! Promises: the body is never larger than its limit, never stops for longer than its limit, and ends in time. An answer that
//! broke off never looks like a whole one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use sabha_federation::Host;
use tokio::time::{Instant, timeout_at};

use super::{Limits, OutboundError, connect::Connection, pool::Borrowed};

/// Limits of a request whose answer is read as it comes.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Time for the lookup, the connection, and the head of the answer.
    pub head: Duration,
    /// Time in which at least a byte of the body must come.
    pub idle: Duration,
    /// Time for everything.
    pub time: Duration,
    /// Maximum size of the body.
    pub body_bytes: usize,
}

impl StreamLimits {
    /// The limits after some of the time was spent.
    #[must_use]
    pub fn after(self, spent: Duration) -> Self {
        Self { head: self.head.saturating_sub(spent), time: self.time.saturating_sub(spent), ..self }
    }
}

impl From<Limits> for StreamLimits {
    fn from(limits: Limits) -> Self {
        Self { head: limits.time, idle: limits.time, time: limits.time, body_bytes: limits.body_bytes }
    }
}

/// The body of an answer. Dropping it before its end gives up the rest.
pub struct Streamed {
    /// The rest of the body. `None` after its end and after a failure.
    rest: Option<RestOfBody>,
    is_whole: bool,
    /// The number of bytes that may still come.
    left: usize,
    limits: StreamLimits,
    until: Instant,
}

struct RestOfBody {
    body: Incoming,
    source: BodySource,
}

/// The connection that the body comes from.
pub(super) enum BodySource {
    /// A connection for this answer alone.
    Single(Connection),
    Pooled(Borrowed),
}

impl BodySource {
    fn host(&self) -> &Host {
        match self {
            Self::Single(connection) => connection.host(),
            Self::Pooled(borrowed) => borrowed.host(),
        }
    }
}

impl Streamed {
    /// The body of an answer to a request that began at `began_at`.
    pub(super) fn new(body: Incoming, source: BodySource, limits: StreamLimits, began_at: Instant) -> Self {
        let rest = Some(RestOfBody { body, source });
        Self { rest, is_whole: false, left: limits.body_bytes, limits, until: began_at + limits.time }
    }

    /// The next bytes, at least one. `None` after the last.
    ///
    /// # Errors
    /// [`OutboundError`], and again at each further call.
    ///
    /// # Cancellation
    /// Safe: no bytes are lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, OutboundError> {
        match self.next().await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                self.is_whole = true;
                if let Some(RestOfBody { source: BodySource::Pooled(borrowed), body }) = self.rest.take() {
                    drop(body);
                    borrowed.finish().await;
                }
                Ok(None)
            }
            Err(error) => {
                if let Some(RestOfBody { source: BodySource::Pooled(borrowed), body }) = self.rest.take() {
                    drop(body);
                    borrowed.fail();
                }
                Err(error)
            }
        }
    }

    /// The whole rest of the body, of at most `most` bytes.
    ///
    /// # Errors
    /// [`OutboundError`], also when the rest is larger.
    pub async fn into_bytes(mut self, most: usize) -> Result<Bytes, OutboundError> {
        if most < self.left {
            self.left = most;
            self.limits.body_bytes = most;
        }
        // Most answers come in one piece, which is not copied.
        let Some(first) = self.chunk().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.chunk().await? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(bytes) = self.chunk().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole.freeze())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, OutboundError> {
        let Some(rest) = &mut self.rest else {
            return if self.is_whole { Ok(None) } else { Err(OutboundError::BrokenOff) };
        };
        let too_large = OutboundError::TooLarge { limit_bytes: self.limits.body_bytes };
        // The server has said how much will come.
        if rest.body.size_hint().lower() > self.left as u64 {
            return Err(too_large);
        }
        let idle_until = Instant::now() + self.limits.idle;
        let frames = async {
            loop {
                let Some(frame) = rest.body.frame().await.transpose()? else { return Ok(None) };
                // Empty frames and trailers are no progress.
                match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    _ => {}
                }
            }
        };
        let next = match timeout_at(idle_until.min(self.until), frames).await {
            Ok(Ok(next)) => next,
            Ok(Err(source)) => return Err(OutboundError::Exchange { host: rest.source.host().clone(), source }),
            Err(_) if idle_until < self.until => return Err(OutboundError::Stalled(self.limits.idle)),
            Err(_) => return Err(OutboundError::TimedOut(self.limits.time)),
        };
        let Some(bytes) = next else { return Ok(None) };
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => return Err(too_large),
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests;
