//! New events on their way to the other servers, which repeat until they are acknowledged.
//!
//! Simpler than the real sender, which is to take this file's place: after a crash a server sends all its events again.

use std::collections::{BTreeMap, BTreeSet};

use ruma::OwnedEventId;

use super::{net::Message, stage::Stage, store::Rows};
use crate::standing::Flags;

#[derive(Default)]
pub(super) struct Pushes {
    /// The pushes that are not acknowledged, by destination and number.
    open: BTreeMap<(usize, u64), Vec<OwnedEventId>>,
    last: u64,
    /// The pushes of others that we did not acknowledge, by origin and number.
    received: BTreeMap<(usize, u64), BTreeSet<OwnedEventId>>,
}

impl Pushes {
    /// Returns whether every other server has everything.
    pub fn are_acknowledged(&self) -> bool {
        self.open.is_empty()
    }

    /// Sends events to every other server.
    pub fn push(&mut self, stage: &mut Stage, server: usize, life: u64, disk: &Rows, events: Vec<OwnedEventId>) {
        self.last += 1;
        // A number of an earlier life is never used again.
        let number = (life << 32) + self.last;
        for to in stage.others(server) {
            self.open.insert((to, number), events.clone());
            send(stage, server, to, number, disk, &events);
        }
    }

    /// Sends all events of this server again: it does not know which of them arrived.
    pub fn push_again(&mut self, stage: &mut Stage, server: usize, life: u64, disk: &Rows) {
        let ours = disk.in_order().into_iter().filter(|row| row.flags.contains(Flags::OURS));
        let ours: Vec<_> = ours.map(|row| row.pdu.event_id.clone()).collect();
        if !ours.is_empty() {
            self.push(stage, server, life, disk, ours);
        }
    }

    /// Repeats what was not acknowledged.
    pub fn send_again(&self, stage: &mut Stage, server: usize, disk: &Rows) {
        for ((to, number), events) in &self.open {
            send(stage, server, *to, *number, disk, events);
        }
    }

    /// Ends a push that was acknowledged.
    pub fn acknowledged(&mut self, by: usize, number: u64) {
        self.open.remove(&(by, number));
    }

    /// Takes a push of another server, with the IDs of its good events.
    pub fn receive(&mut self, from: usize, number: u64, events: BTreeSet<OwnedEventId>) {
        self.received.insert((from, number), events);
    }

    /// Acknowledges the pushes of which everything is on disk.
    pub fn acknowledge(&mut self, stage: &mut Stage, server: usize, disk: &Rows) {
        let done = self.received.extract_if(.., |_, events| events.iter().all(|event_id| disk.knows(event_id)));
        for ((from, number), _) in done {
            stage.send(server, from, Message::Pushed { number });
        }
    }
}

fn send(stage: &mut Stage, server: usize, to: usize, number: u64, disk: &Rows, events: &[OwnedEventId]) {
    let rows = events.iter().filter_map(|event_id| disk.find(event_id));
    let events = rows.map(|row| row.pdu.json.clone()).collect();
    stage.send(server, to, Message::Push { number, events });
}
