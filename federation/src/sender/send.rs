//! The next step of a destination: a probe, a retry, a read of what it has missed, or a transaction.

use std::{sync::Arc, time::Duration};

use super::{
    EffectNumber, SenderEffect, Shard, Step,
    catch_up::READ_AGAIN_AFTER,
    destination::{Destination, Doing, Sending},
    draft::{Draft, Loading},
    effect::SkipReason,
    input::Loaded,
    limits::Grant,
    transaction::{Contents, LEAST_BYTES, Source, Transaction},
};
use crate::ids::{Position, ServerNid};

/// The time limit of a request. Other servers answer when they have worked through the transaction.
pub const SEND_TIME: Duration = Duration::from_secs(60);

/// Maximum size of the answer: an error for each PDU, and room for more.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;

impl Shard {
    /// Looks for something to do. `is_next` is set if the destination has waited, for memory or for its turn.
    pub(super) fn begin(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        is_next: bool,
        step: &mut Step<'_>,
    ) {
        let now = step.now;
        if destination.read_again_at.is_some_and(|at| at > now.moment) {
            return;
        }
        destination.read_again_at = None;
        if let Some(backoff) = destination.backoff {
            if backoff.next_at > now.moment {
                return;
            }
            if let Some((kept, grant)) = destination.kept.take().zip(self.bodies.retry(server, true)) {
                return self.send(server, destination, kept, Some(grant), step);
            }
            if !destination.has_work() {
                // Only EDUs failed, which are old now.
                destination.backoff = None;
            }
        }
        // One that fails has to answer before its work is read.
        let is_unknown = destination.backoff.is_some() && !destination.trial.is_proven();
        let announces = destination.announce_at.is_some_and(|at| at <= now.moment);
        if is_unknown || announces || destination.trial.wants_probe() {
            destination.announce_at = None;
            let empty = Transaction::empty(&self.origin, now);
            return self.send(server, destination, Arc::new(empty), None, step);
        }
        self.draft(server, destination, is_next, step);
    }

    /// Drafts a transaction, and has its parts read.
    fn draft(&mut self, server: ServerNid, destination: &mut Destination, is_next: bool, step: &mut Step<'_>) {
        let most_parts = destination.trial.most_parts();
        let items = destination.items;
        let draft = match &destination.missed {
            None => Draft::new(Source::Live, items, Some((&destination.live, self.read_upto)), false, most_parts),
            Some(missed) => match &missed.page {
                Some(page) => Draft::new(Source::Page, items, Some((&page.queue, page.upto)), page.by_room, most_parts),
                // Messages to devices do not wait until the backlog is read.
                None if items.is_waiting() => Draft::new(Source::Items, items, None, false, most_parts),
                None => return self.read_missed(server, destination, is_next, step),
            },
        };
        let is_ready = destination.ephemeral.ready_at().is_some_and(|at| at <= step.now.moment);
        if draft.is_empty() && !(is_ready && destination.takes_ephemeral()) {
            // A probe was accepted, and nothing is left to send.
            destination.backoff = None;
            self.meet(server, destination, step);
            return;
        }
        let is_slow = destination.is_slow || destination.backoff.is_some();
        let Some(grant) = self.bodies.grant(server, draft.most_bytes(), is_slow, is_next) else {
            destination.doing = Doing::Waiting;
            return;
        };
        while let Some(evicted) = self.bodies.evict() {
            if let Some(evicted) = self.destinations.get_mut(&evicted) {
                evicted.kept = None;
            }
        }
        let number = self.next_number();
        let wanted = draft.wanted(grant.bytes);
        let is_empty = draft.is_empty();
        destination.doing = Doing::Loading(Box::new(Loading { number, grant, draft }));
        if is_empty {
            self.loaded(server, destination, number, Loaded::default(), step);
        } else {
            step.effects.push(SenderEffect::Load { server, number, wanted });
        }
    }

    /// Sends a transaction of the parts that were read.
    pub(super) fn loaded(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        number: EffectNumber,
        loaded: Loaded,
        step: &mut Step<'_>,
    ) {
        if !matches!(&destination.doing, Doing::Loading(loading) if loading.number == number) {
            return;
        }
        let Doing::Loading(loading) = std::mem::take(&mut destination.doing) else { return };
        let Loading { grant, draft, .. } = *loading;
        // None is added to a part that is suspected.
        let with_ephemeral = destination.takes_ephemeral() && (destination.trial.is_full() || draft.is_empty());
        let ephemeral = Some(&mut destination.ephemeral).filter(|_| with_ephemeral);
        let most_bytes = grant.bytes.max(LEAST_BYTES);
        let (transaction, too_large) = draft.assemble(loaded, ephemeral, most_bytes, &self.origin, step.now);
        for part in too_large {
            step.effects.push(SenderEffect::Skipped { server, part, reason: SkipReason::TooLarge });
        }
        let contents = &transaction.contents;
        if contents.is_empty() {
            self.bodies.release(grant);
            if contents.is_nothing() {
                destination.read_again_at = Some(step.now.moment.after(READ_AGAIN_AFTER));
            } else {
                // The parts are no longer stored.
                self.acknowledge(server, destination, contents, step);
            }
            return;
        }
        let grant = self.bodies.shrink(grant, transaction.body().len());
        self.send(server, destination, Arc::new(transaction), Some(grant), step);
    }

    fn send(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        transaction: Arc<Transaction>,
        grant: Option<Grant>,
        step: &mut Step<'_>,
    ) {
        let (number, since) = (self.next_number(), step.now.moment);
        step.effects.push(SenderEffect::Send { server, number, transaction: Arc::clone(&transaction) });
        if grant.is_some() {
            self.bodies.sent(server, since);
        }
        destination.doing = Doing::Sending(Sending { number, transaction, since, grant });
    }

    /// Removes work that is delivered.
    pub(super) fn acknowledge(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        contents: &Contents,
        step: &mut Step<'_>,
    ) {
        if let Some(upto) = contents.items_upto {
            destination.items.done = destination.items.done.max(upto);
            step.effects.push(SenderEffect::DeleteItems { server, upto });
        }
        if contents.source == Source::Live {
            destination.live.remove(contents.devices_upto, contents.events_upto);
        }
        if let Some(missed) = &mut destination.missed {
            missed.done = missed.done.max(contents.done_after);
            if let Some(page) = missed.page.as_mut().filter(|_| contents.source == Source::Page) {
                page.queue.remove(contents.devices_upto, contents.events_upto);
                let next = page.queue.devices.front().map_or(page.upto, |next| Position(next.pos.0 - 1));
                missed.devices_done = missed.devices_done.max(next);
            }
        }
        self.finish_page(destination);
    }
}
