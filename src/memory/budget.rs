//! The memory budget: how many bytes each cache may fill.
//!
//! It covers the caches whose size users decide. The state of rooms in use, sessions and requests in flight are not in it: a
//! server cannot work without them, and they have limits of their own.

use std::sync::{Mutex, PoisonError};

/// A cache that the budget limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Events that were read lately.
    Events,
    /// The latest events of rooms in use. Those that are also in [`Self::Events`] count twice.
    LatestEvents,
    /// New events as all members of a room see them.
    Deltas,
    /// Receipts of rooms in use.
    Receipts,
    /// The members that each device was sent.
    LazyMembers,
    /// Compiled filters.
    Filters,
    /// Pairs of event type and state key.
    StateKeys,
}

impl Part {
    pub const ALL: [Self; 7] = [
        Self::Events,
        Self::LatestEvents,
        Self::Deltas,
        Self::Receipts,
        Self::LazyMembers,
        Self::Filters,
        Self::StateKeys,
    ];

    /// The name in the metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::LatestEvents => "latest_events",
            Self::Deltas => "deltas",
            Self::Receipts => "receipts",
            Self::LazyMembers => "lazy_members",
            Self::Filters => "filters",
            Self::StateKeys => "state_keys",
        }
    }

    /// The share of the budget, in percent. Events make most reads of the database unnecessary, so they get most.
    fn percent(self) -> u64 {
        match self {
            Self::Events => 30,
            Self::LatestEvents => 20,
            Self::Deltas => 4,
            Self::Receipts => 15,
            Self::LazyMembers => 10,
            Self::Filters => 4,
            Self::StateKeys => 8,
        }
    }
}

/// Returns the present size of a cache, in bytes.
type Gauge = Box<dyn Fn() -> u64 + Send + Sync>;

/// The bytes of all caches together, and how to find out how many each has.
pub struct Budget {
    bytes: u64,
    gauges: Mutex<Vec<(Part, Gauge)>>,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self { bytes, gauges: Mutex::default() }
    }

    /// The bytes that this cache may fill.
    pub fn share(&self, part: Part) -> u64 {
        self.bytes / 100 * part.percent()
    }

    /// Lets `bytes` say how large the cache is, for the metrics.
    pub fn watch(&self, part: Part, bytes: impl Fn() -> u64 + Send + Sync + 'static) {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).push((part, Box::new(bytes)));
    }

    /// Records the sizes of all caches in the metrics.
    pub fn record(&self) {
        for (part, bytes) in &*self.gauges.lock().unwrap_or_else(PoisonError::into_inner) {
            #[expect(clippy::cast_precision_loss, reason = "the metrics are floating-point numbers")]
            metrics::gauge!("sabha_memory_bytes", "cache" => part.name()).set(bytes() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_into_the_budget() {
        let budget = Budget::new(64 << 20);
        let shares: u64 = Part::ALL.into_iter().map(|part| budget.share(part)).sum();
        assert!(shares <= 64 << 20, "{shares}");
    }
}
