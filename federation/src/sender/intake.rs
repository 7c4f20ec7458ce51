//! New work: it is queued for each of its destinations, unless it has to be read later in any case.

use std::time::Duration;

use super::{
    Shard, Step,
    answer::KEPT_FOR,
    backoff::draw,
    count,
    input::{EduOut, Outgoing},
    queue::{Entry, Work},
    time::Moment,
    transaction::MAX_PART_BYTES,
};
use crate::ids::{Position, ServerNid};

/// Maximum number of events and changes of devices that wait for a healthy destination: minutes of a busy room.
const MAX_QUEUED: usize = 500;

/// The time over which empty transactions are spread after this server was away.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(300);

impl Shard {
    /// Queues work that follows from a commit.
    pub(super) fn committed(&mut self, pos: Position, work: Vec<Outgoing>, now: Moment) {
        for outgoing in work {
            match outgoing {
                Outgoing::Event { room, event, to } => {
                    to.into_iter().for_each(|server| self.enqueue(server, pos, Work::Event { room, event }, now));
                }
                Outgoing::DeviceList { user, to } => {
                    to.into_iter().for_each(|server| self.enqueue(server, pos, Work::Devices { user }, now));
                }
                Outgoing::Item { server, seq } => {
                    let items = &mut self.destinations.entry(server).or_default().items;
                    items.newest = items.newest.max(seq);
                    self.touched.push_back(server);
                }
            }
        }
        self.read_upto = self.read_upto.max(pos);
    }

    fn enqueue(&mut self, server: ServerNid, pos: Position, work: Work, now: Moment) {
        let serial = self.next_serial();
        let destination = self.destinations.entry(server).or_default();
        self.touched.push_back(server);
        let is_read_later = destination.missed.as_ref().is_some_and(|missed| missed.live_after.is_none());
        if is_read_later {
            return;
        }
        let fails_long = destination.backoff.is_some_and(|backoff| now.since(backoff.failing_since) >= KEPT_FOR);
        let is_down = fails_long && !destination.trial.is_proven();
        if is_down || destination.live.len() >= MAX_QUEUED || self.counted.queued >= self.bounds.queued {
            // Work of this very position may have been noted before.
            let done = destination.done(self.read_upto.min(Position(pos.0 - 1)));
            destination.forget_live(done);
        } else {
            destination.live.push(Entry { serial, pos, work, since: now });
        }
        count(&mut self.counted, destination);
    }

    /// Takes an EDU that is in memory alone.
    pub(super) fn take_edu(&mut self, edu: EduOut) {
        if edu.json.len() > MAX_PART_BYTES {
            return;
        }
        for server in edu.to {
            let destination = self.destinations.entry(server).or_default();
            if destination.takes_ephemeral() {
                let others = self.counted.edu_bytes - destination.counted.edu_bytes;
                let most_bytes = self.bounds.edu_bytes.saturating_sub(others);
                destination.ephemeral.put(edu.key.clone(), edu.json.clone(), most_bytes);
                count(&mut self.counted, destination);
            }
            self.touched.push_back(server);
        }
    }

    /// Notes that these are to be told that we are back.
    pub(super) fn announce(&mut self, servers: Vec<ServerNid>, step: &mut Step<'_>) {
        for server in servers {
            let destination = self.destinations.entry(server).or_default();
            // One that fails is tried in any case.
            if destination.backoff.is_none() {
                let pause = draw(Duration::ZERO, ANNOUNCED_WITHIN, step.rand);
                destination.announce_at = Some(step.now.moment.after(pause));
            }
            self.touched.push_back(server);
        }
    }
}
