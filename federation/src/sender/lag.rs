//! The row of a destination that lags.
//!
//! The cursor of the sender stays before all work that is not delivered, so that a crash loses none. It cannot stay there for
//! a destination that is down or slow. Such a one gets a row, and once that is committed, the cursor moves on. The row goes
//! when the destination has everything up to where the cursor may be: at a success, the row covers no later work any more,
//! and when everything that it covers is delivered, it is deleted.

use std::{borrow::Cow, time::Duration};

use super::{
    EffectNumber, SenderEffect, Shard, Step,
    destination::{Destination, Doing},
    effect::LagRow,
    limits::GIVE_WAY_AFTER,
    time::Moment,
};
use crate::ids::{Position, ServerNid};

/// The interval in which the progress of a destination is stored. After a crash, as much is delivered twice.
const STORE_EVERY: Duration = Duration::from_secs(5);

/// A row, as its destination knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lag {
    /// The first effect that stored it since there was none.
    first: EffectNumber,
    /// Set once it is committed.
    pub is_stored: bool,
    /// The position in it.
    pos: Position,
    /// Set if it says that the destination fails.
    is_failing: bool,
    written_at: Moment,
    /// The row covers work up to here. `None`: all work, also later work.
    pub covers_upto: Option<Position>,
}

impl Lag {
    /// A row that was found at the start.
    pub fn found(pos: Position, is_failing: bool, now: Moment) -> Self {
        Self { first: EffectNumber(0), is_stored: true, pos, is_failing, written_at: now, covers_upto: None }
    }
}

impl Shard {
    /// Stores the row of a destination, or its progress.
    pub(super) fn store_lag(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        reason: impl Into<Cow<'static, str>>,
        step: &mut Step<'_>,
    ) {
        let number = self.next_number();
        let pos = destination.done(self.read_upto);
        let row = LagRow::new(server, pos, destination.backoff.as_ref(), reason, step.now);
        step.effects.push(SenderEffect::Lag { row, number });
        let (is_failing, written_at) = (destination.backoff.is_some(), step.now.moment);
        let before = destination.lag.map(|lag| (lag.first, lag.is_stored));
        let (first, is_stored) = before.unwrap_or((number, false));
        destination.lag = Some(Lag { first, is_stored, pos, is_failing, written_at, covers_upto: None });
    }

    /// Notes that a row is committed.
    pub(super) fn lag_stored(&mut self, server: ServerNid, number: EffectNumber) {
        let lag = self.destinations.get_mut(&server).and_then(|destination| destination.lag.as_mut());
        if let Some(lag) = lag.filter(|lag| number >= lag.first) {
            lag.is_stored = true;
        }
    }

    /// Gives a destination a row if its work is not in memory, or would hold the cursor back for too long.
    pub(super) fn mind_lag(&mut self, server: ServerNid, destination: &mut Destination, step: &mut Step<'_>) {
        let is_late = destination.holds_since().is_some_and(|since| since.after(GIVE_WAY_AFTER) <= step.now.moment);
        match &mut destination.lag {
            None if destination.missed.is_some() => {
                self.store_lag(server, destination, "more waited than is kept in memory", step);
            }
            None if is_late => {
                self.store_lag(server, destination, "the destination takes longer than five seconds", step)
            }
            Some(lag) if is_late => lag.covers_upto = None,
            _ => {}
        }
    }

    /// Deletes the row after a success if everything that it covers is delivered, or else stores the progress from time to
    /// time.
    pub(super) fn meet(&mut self, server: ServerNid, destination: &mut Destination, step: &mut Step<'_>) {
        let (done, read_upto) = (destination.done(self.read_upto), self.read_upto);
        let is_whole = destination.missed.is_none();
        let Some(lag) = &mut destination.lag else { return };
        if is_whole && done >= *lag.covers_upto.get_or_insert(read_upto) {
            destination.lag = None;
            step.effects.push(SenderEffect::Unlag { server });
            return;
        }
        let has_moved = done > lag.pos && lag.written_at.after(STORE_EVERY) <= step.now.moment;
        if has_moved || lag.is_failing {
            let covers_upto = lag.covers_upto;
            self.store_lag(server, destination, "catching up", step);
            if let Some(lag) = &mut destination.lag {
                lag.covers_upto = covers_upto;
            }
        }
    }

    /// Takes away the turn of a destination that catches up.
    pub(super) fn give_turn_back(&mut self, destination: &mut Destination) {
        let is_reading = matches!(destination.doing, Doing::Reading(_));
        let page = destination.missed.as_mut().and_then(|missed| missed.page.take());
        if is_reading || page.is_some() {
            self.turns.give_back();
        }
    }
}
