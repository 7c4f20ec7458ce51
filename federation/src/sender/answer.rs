//! Answers to transactions: what follows from a success and from a failure.

use std::{sync::Arc, time::Duration};

use super::{
    EffectNumber, SenderEffect, Shard, Step,
    backoff::Backoff,
    destination::{Destination, Doing, Sending},
    effect::SkipReason,
    transaction::Transaction,
    verdict::{Next, SendResult, Verdict},
};
use crate::ids::ServerNid;

/// The time for which a transaction that failed is kept for a retry, and the work stays in memory. Most failures are shorter.
/// After that, a destination that is down takes no memory for its work.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(60);

/// A request that takes longer makes its destination a slow one.
const SLOW_AFTER: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes the end of a request.
    pub(super) fn answered(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        number: EffectNumber,
        (result, reason): (SendResult, String),
        step: &mut Step<'_>,
    ) {
        if !matches!(&destination.doing, Doing::Sending(sending) if sending.number == number) {
            return;
        }
        let Doing::Sending(sending) = std::mem::take(&mut destination.doing) else { return };
        let Sending { transaction, since, grant, .. } = sending;
        if let Some(grant) = grant {
            self.bodies.answered(server, since);
            self.bodies.release(grant);
        }
        destination.is_slow = step.now.moment.since(since) > SLOW_AFTER;
        match result.verdict() {
            Verdict::Delivered if transaction.contents.is_empty() => destination.trial.proved(),
            Verdict::Delivered => {
                destination.trial.delivered(transaction.contents.last);
                (destination.backoff, destination.announce_at) = (None, None);
                self.acknowledge(server, destination, &transaction.contents, step);
                self.meet(server, destination, step);
            }
            verdict => self.failed(server, destination, &transaction, verdict, (result, reason), step),
        }
    }

    fn failed(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        transaction: &Arc<Transaction>,
        verdict: Verdict,
        (result, reason): (SendResult, String),
        step: &mut Step<'_>,
    ) {
        let contents = &transaction.contents;
        destination.ephemeral.clear();
        let next = destination.trial.failed(verdict, contents.parts, contents.last);
        match next {
            Next::Smaller { at_once: true } | Next::Probe { at_once: true } => return,
            Next::Skip => {
                if let Some(part) = contents.last {
                    step.effects.push(SenderEffect::Skipped { server, part, reason: SkipReason::NotTaken });
                }
                destination.backoff = None;
                self.acknowledge(server, destination, contents, step);
                self.meet(server, destination, step);
                return;
            }
            Next::Again | Next::Smaller { at_once: false } | Next::Probe { at_once: false } => {}
        }
        destination.is_slow = true;
        let backoff = Backoff::failed(destination.backoff, step.now, result.retry_after(), step.rand);
        destination.backoff = Some(backoff);
        let is_recent = backoff.failing_for(step.now) < KEPT_FOR;
        let is_kept = is_recent && next == Next::Again && contents.parts > 0;
        if is_kept && self.bodies.keep(server, transaction.body().len()) {
            destination.kept = Some(Arc::clone(transaction));
        }
        // The page is read again: meanwhile, others have its turn.
        self.give_turn_back(destination);
        if destination.missed.is_some() || (!is_recent && !destination.live.is_empty()) {
            destination.forget_live(destination.done(self.read_upto));
        }
        if destination.has_work() {
            self.store_lag(server, destination, reason, step);
        }
    }

    /// Stops the oldest request, because others wait for its memory.
    pub(super) fn give_way(&mut self, server: ServerNid, destination: &mut Destination, step: &mut Step<'_>) {
        let Doing::Sending(Sending { number, .. }) = destination.doing else { return };
        step.effects.push(SenderEffect::Abort { server, number });
        let reason = "the request took long, and others waited".to_owned();
        self.answered(server, destination, number, (SendResult::Failed, reason), step);
    }
}
