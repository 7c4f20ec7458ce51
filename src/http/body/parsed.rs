//! The memory of parsed bodies, held from before a body is parsed until its handler ends.
//!
//! A parsed body takes many times the memory of its text ([`crate::json::Parts`]), and a handler may work on it for long:
//! it asks the database thousands of times, or waits for its user's turn. So each parsed body holds a part of a budget, of
//! which no sender has more than a share. A request waits for its part with nothing but its text, which counts as a body
//! that is received.
//!
//! Promises: small bodies never wait for large ones; a handler holds one part and never waits for another, so that every
//! part comes back in bounded time. Requests whose handlers wait for other servers or for a password's hash are small, and
//! hold no part ([`WaitsFor`](crate::endpoint::WaitsFor)). A body that takes more than a share is refused.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{RETRY, SHARE_BYTES, SMALL_BYTES, Sender, pool::too_much};
use crate::{
    config::Limits,
    http::ApiError,
    shares::{NoShare, Share, Shares},
};

/// The maximum size of a parsed body that needs no part of the budget: an event, a login, a join, a page of read markers. The
/// default rate limits let a user make some hundreds of these requests at a time, which take 32 MB.
pub(crate) const FREE_BYTES: usize = 64 << 10;

/// The number of shares in the budget for all large bodies of one kind of sender: with the default limits, as much as for
/// their texts.
const LARGE_PARSED_SHARES: usize = 4;

/// The share of one user, or of one network: an upload to a key backup takes 6 MiB for each megabyte, and a message to all
/// devices of 10,000 users 12 MB.
const LARGE_PARSED_SHARE_BYTES: usize = 2 * SHARE_BYTES;

/// The share for each byte of the largest body that the configuration allows, so that an upload to a key backup of this size
/// has space.
const LARGE_PARSED_SHARE_FACTOR: usize = 8;

/// The budget for all small bodies of one kind of sender, parsed: as much as for their texts.
const SMALL_PARSED_BYTES: usize = SMALL_BYTES;

/// The share of one user, or of one network: two dozen uploads of a hundred one-time keys.
const SMALL_PARSED_SHARE_BYTES: usize = 8 << 20;

/// The unit of the budgets.
const UNIT_BYTES: usize = 1 << 10;

/// The time that a request waits for its part. A handler works for well under a second, or waits ten seconds at most for a
/// turn of its user. Clients give up after 30.
const WAIT: Duration = Duration::from_secs(20);

/// The part of the budget that a parsed body holds, until this is dropped. Boxed, because few requests have one.
pub type ParsedBody = Box<Share<Sender>>;

/// The budgets for parsed bodies.
pub(super) struct ParsedBodies {
    known: Kind,
    strangers: Kind,
    unproven: Kind,
}

/// The budgets for one kind of sender.
struct Kind {
    small: Arc<Shares<Sender>>,
    large: Arc<Shares<Sender>>,
}

impl Kind {
    fn new(max_bytes: usize) -> Self {
        // The budgets of the texts bound the requests that wait.
        let shares = |all_bytes, share_bytes| Shares::new(units(all_bytes), units(share_bytes), usize::MAX);
        let large_share = LARGE_PARSED_SHARE_BYTES.max(max_bytes.saturating_mul(LARGE_PARSED_SHARE_FACTOR));
        Self {
            small: shares(SMALL_PARSED_BYTES, SMALL_PARSED_SHARE_BYTES),
            large: shares(large_share.saturating_mul(LARGE_PARSED_SHARES), large_share),
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// The refusal of a body that takes too much memory once it is parsed.
pub(crate) fn too_many_parts() -> ApiError {
    ApiError::too_large("The request has too many parts. Please send them in several requests.")
}

impl ParsedBodies {
    pub(super) fn new(limits: &Limits) -> Self {
        let kind = || Kind::new(limits.request_bytes.bytes());
        Self { known: kind(), strangers: kind(), unproven: kind() }
    }

    fn shares(&self, sender: Sender, is_large: bool) -> &Arc<Shares<Sender>> {
        let kind = match sender {
            Sender::User(_) | Sender::Appservice => &self.known,
            Sender::Stranger(_) => &self.strangers,
            Sender::Unproven(_) => &self.unproven,
        };
        if is_large { &kind.large } else { &kind.small }
    }

    /// Takes the part of a body that takes `bytes` when it is parsed, if it is free. `None` if it is not.
    ///
    /// # Errors
    /// `413` for a body that takes more than a share.
    pub(super) fn try_take(
        &self,
        sender: Sender,
        is_large: bool,
        bytes: usize,
    ) -> Result<Option<ParsedBody>, ApiError> {
        match self.shares(sender, is_large).try_take(sender, units(bytes)) {
            Ok(part) => Ok(Some(Box::new(part))),
            Err(NoShare::TooMuch) => Err(too_many_parts()),
            Err(NoShare::OfHolder | NoShare::OfAll) => Ok(None),
        }
    }

    /// Waits for the part of a body.
    ///
    /// # Errors
    /// `413` for a body that takes more than a share, `429` if the sender's other bodies have their share for [`WAIT`], `503`
    /// if all bodies have the budget.
    pub(super) async fn take(&self, sender: Sender, is_large: bool, bytes: usize) -> Result<ParsedBody, ApiError> {
        let part = self.shares(sender, is_large).take(sender, units(bytes), Instant::now() + WAIT);
        part.await.map(Box::new).map_err(|none| match none {
            NoShare::TooMuch => too_many_parts(),
            NoShare::OfHolder => ApiError::limit_exceeded(RETRY),
            NoShare::OfAll => too_much(),
        })
    }

    /// The number of the sender's requests that hold a part or wait for it.
    pub(super) fn asking(&self, sender: Sender) -> usize {
        [true, false].into_iter().map(|is_large| self.shares(sender, is_large).asking(sender)).sum()
    }

    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        let kinds = [&self.known, &self.strangers, &self.unproven];
        kinds.iter().map(|kind| kind.small.holders() + kind.large.holders()).sum()
    }
}

#[cfg(test)]
mod tests;
