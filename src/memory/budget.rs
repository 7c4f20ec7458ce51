//! The memory budget: how many bytes each cache may fill.
//!
//! It covers every cache whose size users decide. Not in it are the state of rooms in use, the memberships of live users
//! and requests in flight: a server cannot work without them, and they have limits of their own.

use std::{
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, sync::Cache};

use super::{
    cache::{ByBytes, ByteCache, HasBytes, PIECES},
    growing::GrowingCache,
};

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
    /// Compiled filters that are stored. Those of waiting syncs have a limit of their own.
    Filters,
    /// Pairs of event type and state key.
    StateKeys,
    /// Users, servers and event types.
    Words,
    /// Sessions by their access token.
    Sessions,
    /// Transaction IDs of devices.
    TransactionIds,
    /// Results of state resolution.
    Resolutions,
    /// The events of rooms that users may see.
    Sights,
    /// States of branches.
    Sides,
    /// The lists of ignored users.
    IgnoredUsers,
    /// Push rules, compiled.
    PushRules,
    /// The fields that push rules read from events.
    EventFields,
    /// The verdicts about senders' plain events.
    AllowedSenders,
    /// Power levels of rooms, for push rules.
    PowerLevels,
    /// Display names in rooms, for push rules.
    DisplayNames,
    /// Events with the verdicts of push rules.
    JudgedEvents,
    /// Unread counts.
    UnreadCounts,
    /// Unread counts that were read from the database and not used yet.
    StoredCounts,
    /// Counts of devices' one-time keys.
    KeyCounts,
    /// The bounds of devices' waiting messages.
    Inboxes,
    /// Keys of other servers.
    ServerKeys,
    /// Addresses of other servers.
    Delegations,
}

impl Part {
    pub const ALL: [Self; 26] = [
        Self::Events,
        Self::LatestEvents,
        Self::Deltas,
        Self::Receipts,
        Self::LazyMembers,
        Self::Filters,
        Self::StateKeys,
        Self::Words,
        Self::Sessions,
        Self::TransactionIds,
        Self::Resolutions,
        Self::Sights,
        Self::Sides,
        Self::IgnoredUsers,
        Self::PushRules,
        Self::EventFields,
        Self::AllowedSenders,
        Self::PowerLevels,
        Self::DisplayNames,
        Self::JudgedEvents,
        Self::UnreadCounts,
        Self::StoredCounts,
        Self::KeyCounts,
        Self::Inboxes,
        Self::ServerKeys,
        Self::Delegations,
    ];

    /// The name in the metrics, the share of the budget in percent, and the usual size of a value in bytes.
    ///
    /// Events make most reads of the database unnecessary, so they get most. The size only says into how many pieces
    /// a cache is divided.
    const fn facts(self) -> (&'static str, u64, u64) {
        match self {
            Self::Events => ("events", 15, 2_400),
            Self::LatestEvents => ("latest_events", 11, 2_400),
            Self::Deltas => ("deltas", 2, 1_000),
            Self::Receipts => ("receipts", 8, 2_000),
            Self::LazyMembers => ("lazy_members", 5, 256),
            Self::Filters => ("filters", 2, 1_024),
            Self::StateKeys => ("state_keys", 4, 320),
            Self::Words => ("words", 3, 300),
            Self::Sessions => ("sessions", 4, 600),
            Self::TransactionIds => ("transaction_ids", 5, 6_000),
            Self::Resolutions => ("resolutions", 1, 4_000),
            Self::Sights => ("sights", 2, 200),
            Self::Sides => ("sides", 1, 1_000),
            Self::IgnoredUsers => ("ignored_users", 1, 120),
            Self::PushRules => ("push_rules", 8, 10_000),
            Self::EventFields => ("event_fields", 2, 6_000),
            Self::AllowedSenders => ("allowed_senders", 1, 1_600),
            Self::PowerLevels => ("power_levels", 1, 600),
            Self::DisplayNames => ("display_names", 1, 600),
            Self::JudgedEvents => ("judged_events", 9, 10_000),
            Self::UnreadCounts => ("unread_counts", 7, 1_000),
            Self::StoredCounts => ("stored_counts", 2, 1_600),
            Self::KeyCounts => ("key_counts", 2, 400),
            Self::Inboxes => ("inboxes", 1, 100),
            Self::ServerKeys => ("server_keys", 1, 600),
            Self::Delegations => ("delegations", 1, 300),
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
        let (_, percent, _) = part.facts();
        self.bytes / 100 * percent
    }

    /// About how many usual values fit into the share of this cache; at least one.
    pub fn values(&self, part: Part) -> usize {
        let (_, _, usual_bytes) = part.facts();
        usize::try_from(self.share(part) / usual_bytes).unwrap_or(usize::MAX).max(1)
    }

    /// A cache that fills at most the share of `part`.
    pub fn cache<K, V>(&self, part: Part) -> Arc<ByteCache<K, V>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: HasBytes + Clone + Send + Sync + 'static,
    {
        self.cache_with(part, Default::default())
    }

    /// As [`Self::cache`], where `lifecycle` says which values must stay.
    pub fn cache_with<K, V, L>(&self, part: Part, lifecycle: L) -> Arc<Cache<K, V, ByBytes, DefaultHashBuilder, L>>
    where
        K: Hash + Eq + Send + Sync + 'static,
        V: HasBytes + Clone + Send + Sync + 'static,
        L: Lifecycle<K, V> + Clone + Send + Sync + 'static,
    {
        let mut options = OptionsBuilder::new();
        options.shards(PIECES).estimated_items_capacity(self.values(part)).weight_capacity(self.share(part));
        let options = options.build().expect("both capacities are given");
        let cache = Arc::new(Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), lifecycle));
        let weighed = Arc::clone(&cache);
        self.watch(part, move || weighed.weight());
        cache
    }

    /// A cache of values that grow, which fills at most the share of `part`.
    pub fn growing_cache<K, V>(&self, part: Part) -> Arc<GrowingCache<K, V>>
    where
        K: Hash + Eq + Clone + Send + Sync + 'static,
        V: Default + Send + Sync + 'static,
    {
        let cache = Arc::new(GrowingCache::new(self.share(part), self.values(part)));
        let weighed = Arc::clone(&cache);
        self.watch(part, move || weighed.bytes());
        cache
    }

    /// Lets `bytes` say how large the cache is, for the metrics.
    pub fn watch(&self, part: Part, bytes: impl Fn() -> u64 + Send + Sync + 'static) {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).push((part, Box::new(bytes)));
    }

    /// Records the sizes of all caches in the metrics.
    pub fn record(&self) {
        for (part, bytes) in &*self.gauges.lock().unwrap_or_else(PoisonError::into_inner) {
            let (name, ..) = part.facts();
            #[expect(clippy::cast_precision_loss, reason = "the metrics are floating-point numbers")]
            metrics::gauge!("sabha_memory_bytes", "cache" => name).set(bytes() as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct OfBytes(u64);

    impl HasBytes for OfBytes {
        fn bytes(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn the_shares_fit_into_the_budget() {
        for bytes in [0, 99, 1 << 20, 256 << 20] {
            let budget = Budget::new(bytes);
            let shares: u64 = Part::ALL.into_iter().map(|part| budget.share(part)).sum();
            assert!(shares <= bytes, "{shares} of {bytes}");
        }
    }

    #[test]
    fn each_part_has_a_name_and_a_share_of_its_own() {
        let budget = Budget::new(16 << 20);
        let names: HashSet<&str> = Part::ALL.into_iter().map(|part| part.facts().0).collect();
        assert_eq!(names.len(), Part::ALL.len());
        assert!(Part::ALL.into_iter().all(|part| budget.share(part) > 0));
    }

    #[test]
    fn the_manual_names_the_shares() {
        let manual = include_str!("../../docs/operating/README.md");
        for part in Part::ALL {
            let (name, percent, _) = part.facts();
            // Small shares are told together.
            let told = if percent > 2 { format!("`{name}` {percent}") } else { format!("`{name}`") };
            assert!(manual.contains(&told), "{told}");
        }
    }

    #[test]
    fn a_tiny_budget_still_works() {
        for bytes in [0, 1, 100, 5_000] {
            let budget = Budget::new(bytes);
            for part in Part::ALL {
                let cache = budget.cache::<u64, OfBytes>(part);
                let growing = budget.growing_cache::<u64, Mutex<u64>>(part);
                for key in 0..50 {
                    cache.insert(key, OfBytes(100));
                    assert!(cache.get(&key).is_none_or(|value| value == OfBytes(100)));
                    let value = growing.get_or_default(&key, 100);
                    growing.has_grown(&key, &value, 200);
                }
                assert!(cache.weight() <= budget.share(part) && growing.bytes() <= budget.share(part));
            }
            budget.record();
        }
    }
}
