//! The network: messages between servers, which are late, lost, doubled and out of order.

use std::sync::Arc;

use ruma::OwnedEventId;

use super::{faults::Weather, rand::Rand};

/// A message of one server to another.
#[derive(Clone)]
pub(super) enum Message {
    /// New events, as JSON. The sender repeats it until it is acknowledged.
    Push { number: u64, events: Vec<Arc<str>> },
    /// All events of a push are stored or dropped.
    Pushed { number: u64 },
    /// A question for events.
    Pull { ids: Vec<OwnedEventId> },
    /// Those of the events that the server has.
    Pulled { events: Vec<Arc<str>> },
}

pub(super) struct Net {
    pub weather: Weather,
    /// The side of a partition on which each server is. `None`: all servers reach each other.
    partition: Option<Vec<bool>>,
    is_healed: bool,
    rand: Rand,
}

impl Net {
    /// A network without faults.
    pub fn new(rand: Rand) -> Self {
        Self { weather: Weather::FAIR, partition: None, is_healed: false, rand }
    }

    /// The delays in milliseconds after which a message arrives: none if it is lost, two if it arrives twice.
    pub fn delays(&mut self, from: usize, to: usize) -> Vec<i64> {
        if !self.connects(from, to) || self.rand.percent(self.weather.lost_percent) {
            return Vec::new();
        }
        let copies = if self.rand.percent(self.weather.doubled_percent) { 2 } else { 1 };
        (0..copies).map(|_| self.delay(from, to)).collect()
    }

    /// Begins a partition, or ends it.
    pub fn divide(&mut self, sides: Option<Vec<bool>>) {
        self.partition = sides.filter(|_| !self.is_healed);
    }

    /// Ends all faults for ever.
    pub fn heal(&mut self) {
        self.is_healed = true;
        (self.weather, self.partition) = (Weather::FAIR, None);
    }

    /// Returns whether messages between these servers arrive. Those on their way when a partition begins are lost too.
    pub fn connects(&self, from: usize, to: usize) -> bool {
        self.partition.as_ref().is_none_or(|sides| sides[from] == sides[to])
    }

    fn delay(&mut self, from: usize, to: usize) -> i64 {
        let weather = &self.weather;
        let most = weather.delay_ms.1 * if [Some(from), Some(to)].contains(&weather.slow) { SLOWER } else { 1 };
        self.rand.between(weather.delay_ms.0..=most)
    }
}

/// The longest delays to and from the slow server, as a multiple of those of others.
const SLOWER: i64 = 8;
