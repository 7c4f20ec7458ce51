//! Catching up: a destination whose work is not in memory reads pages of what it has missed, and goes on with the work in
//! memory when the last page is delivered.
//!
//! From the moment of the read on, new work is queued again. So when the last page is delivered, everything after it is in
//! memory, however much is committed meanwhile. If that becomes too much, it is read again.

use std::time::Duration;

use super::{
    EffectNumber, SenderEffect, Shard, Step,
    destination::{Destination, Doing, Page},
    input::MissedPage,
    queue::{Entry, Queue, Work},
    time::Moment,
};
use crate::ids::{Position, ServerNid};

/// Maximum number of events of a page, and of changes of devices.
pub const MAX_PAGE: usize = 100;

/// The pause after a read that failed: long enough for a database in trouble.
pub(super) const READ_AGAIN_AFTER: Duration = Duration::from_secs(10);

impl Shard {
    /// Reads the next page. `is_next` is set if the destination has waited for its turn.
    pub(super) fn read_missed(
        &mut self,
        server: ServerNid,
        destination: &mut Destination,
        is_next: bool,
        step: &mut Step<'_>,
    ) {
        let Some(missed) = &mut destination.missed else { return };
        if !self.turns.take(server, is_next) {
            destination.doing = Doing::Waiting;
            return;
        }
        destination.live.clear();
        missed.live_after = Some(self.read_upto);
        let (after, upto) = (missed.done, self.read_upto);
        let number = self.next_number();
        destination.doing = Doing::Reading(number);
        step.effects.push(SenderEffect::ReadMissed { server, number, after, upto });
    }

    /// Takes a page.
    pub(super) fn missed(
        &mut self,
        destination: &mut Destination,
        number: EffectNumber,
        page: MissedPage,
        now: Moment,
    ) {
        let Some(missed) = &mut destination.missed else { return };
        if !matches!(destination.doing, Doing::Reading(reading) if reading == number) {
            return;
        }
        // A page that leads nowhere would be read again and again.
        if page.upto <= missed.done && !page.is_last {
            self.not_read(destination, number, now);
            return;
        }
        destination.doing = Doing::Nothing;
        let devices_done = missed.devices_done;
        let mut queue = Queue::default();
        let events = page.events.iter().map(|event| {
            let work = Work::Event { room: event.room, event: event.event };
            (event.pos, work)
        });
        let devices = page.devices.iter().filter(|(pos, _)| *pos > devices_done);
        let devices = devices.map(|(pos, user)| (*pos, Work::Devices { user: *user }));
        for (pos, work) in devices.chain(events) {
            queue.push(Entry { serial: self.next_serial(), pos, work, since: now });
        }
        let MissedPage { upto, is_last, by_room, .. } = page;
        missed.page = Some(Page { queue, upto, is_last, by_room });
        self.finish_page(destination);
    }

    /// Ends a page that is delivered.
    pub(super) fn finish_page(&mut self, destination: &mut Destination) {
        let Some(missed) = &mut destination.missed else { return };
        let Some(page) = missed.page.take_if(|page| page.queue.is_empty()) else { return };
        self.turns.give_back();
        missed.done = missed.done.max(page.upto);
        let is_whole = page.is_last && missed.live_after.is_some_and(|after| after <= page.upto);
        if is_whole {
            destination.live.remove_before(page.upto);
            destination.missed = None;
        }
    }

    /// Notes that the database did not answer.
    pub(super) fn not_read(&mut self, destination: &mut Destination, number: EffectNumber, now: Moment) {
        match &destination.doing {
            Doing::Reading(reading) if *reading == number => {
                self.give_turn_back(destination);
                // All of it is read later.
                destination.forget_live(Position::BEFORE_ALL);
            }
            Doing::Loading(loading) if loading.number == number => self.bodies.release(loading.grant),
            _ => return,
        }
        destination.doing = Doing::Nothing;
        destination.read_again_at = Some(now.after(READ_AGAIN_AFTER));
    }
}
