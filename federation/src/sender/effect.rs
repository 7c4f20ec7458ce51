//! The effects of a [`Shard`](super::Shard): reads, writes and requests. Each that is answered has a number.

use std::{borrow::Cow, sync::Arc};

use super::{
    backoff::Backoff,
    time::{Now, millis},
    transaction::Transaction,
    verdict::Kind,
};
use crate::ids::{EventNid, Position, ServerNid, UserNid};

/// Maximum length of a reason in bytes. Reasons are for one line of an operator's list.
const MAX_REASON_BYTES: usize = 200;

/// The number of an effect. Larger is later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EffectNumber(pub u64);

/// Something to do. Effects on rows of the same server are to be committed in their order.
#[derive(Clone, Debug)]
pub enum SenderEffect {
    /// Read the parts of a transaction. Answered by `Loaded` or `NotRead`.
    Load { server: ServerNid, number: EffectNumber, wanted: Wanted },
    /// Send a transaction. Answered by `Answered`, always: the request has a limit in time.
    Send { server: ServerNid, number: EffectNumber, transaction: Arc<Transaction> },
    /// Stop the request. It is not answered any more.
    Abort { server: ServerNid, number: EffectNumber },
    /// Store that the server lags. Answered by `LagStored` once it is committed.
    Lag { row: LagRow, number: EffectNumber },
    /// Delete the server's row: it does not lag any more.
    Unlag { server: ServerNid },
    /// Read what the server has missed after `after`, and at least up to `upto`: from the commit log if that reaches back,
    /// else the newest events of rooms. Answered by `Missed` or `NotRead`.
    ReadMissed { server: ServerNid, number: EffectNumber, after: Position, upto: Position },
    /// Delete the server's items up to `upto`.
    DeleteItems { server: ServerNid, upto: i64 },
    /// Count and log that the server does not get this part.
    Skipped { server: ServerNid, part: Part, reason: SkipReason },
}

/// The parts of a transaction that are to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub items: Option<WantedItems>,
    pub devices: Vec<(UserNid, Position)>,
    pub events: Vec<EventNid>,
    /// The answer may stop after this number of bytes.
    pub most_bytes: usize,
}

/// The oldest items after `after`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WantedItems {
    pub after: i64,
    pub most: usize,
}

/// A part of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Item { seq: i64 },
    Devices { user: UserNid, pos: Position },
    Event { event: EventNid, pos: Position },
}

impl Part {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Item { .. } => Kind::Item,
            Self::Devices { .. } => Kind::Devices,
            Self::Event { .. } => Kind::Event,
        }
    }
}

/// Why a destination does not get a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SkipReason {
    /// The destination refused it alone, or failed at it alone, and took an empty transaction right before.
    NotTaken,
    /// It has more bytes than an event or EDU may have.
    TooLarge,
}

/// A server that lags behind the cursor of the sender. Everything up to `pos` was delivered to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LagRow {
    pub server: ServerNid,
    pub pos: Position,
    /// The time of the next try, in milliseconds since the Unix epoch.
    pub next_ms: i64,
    /// The interval of the back-off; 0 if the server does not fail.
    pub interval_ms: i64,
    /// The time of the first failure in milliseconds since the Unix epoch, or of the row if the server does not fail.
    pub failing_since_ms: i64,
    /// The reason for the operator, cut to 200 bytes.
    pub reason: Cow<'static, str>,
}

impl LagRow {
    pub(super) fn new(
        server: ServerNid,
        pos: Position,
        backoff: Option<&Backoff>,
        reason: impl Into<Cow<'static, str>>,
        now: Now,
    ) -> Self {
        let (next, interval_ms, since) = match backoff {
            // Zero would say that it does not fail.
            Some(backoff) => (backoff.next_at, millis(backoff.interval).max(1), backoff.failing_since),
            None => (now.moment, 0, now.moment),
        };
        let mut reason = reason.into();
        if reason.len() > MAX_REASON_BYTES {
            let cut = reason.floor_char_boundary(MAX_REASON_BYTES);
            reason.to_mut().truncate(cut);
        }
        let (next_ms, failing_since_ms) = (now.unix_ms_at(next), now.unix_ms_at(since));
        Self { server, pos, next_ms, interval_ms, failing_since_ms, reason }
    }
}
