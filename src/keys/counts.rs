//! Counts of a device's remaining one-time keys, for `/sync`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use super::Keys;
use crate::{
    memory::budget::{Budget, Part},
    store::{DeviceNid, Error, Position, ids::lock, one_time_keys},
};

/// The algorithm whose count is sent even when it is 0: clients upload new keys when they see that.
const ALWAYS_COUNTED: &str = "signed_curve25519";

/// The memory of a device's counts, with few algorithms, as most have. When the budget is full we clear the cache, which
/// costs each device one query.
const DEVICE_BYTES: u64 = 400;

/// The remaining keys of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCounts {
    /// One-time keys by algorithm, with an explicit 0 for `signed_curve25519`.
    pub one_time: BTreeMap<String, u64>,
    /// Algorithms whose fallback key has not been used.
    pub unused_fallback: Vec<String>,
    /// The position of their last change, or one after it up to which memory does not know of changes. A `/sync` from after it
    /// has no new counts.
    pub changed_at: Position,
}

#[derive(Debug)]
enum State {
    Unknown,
    /// A query is running. A change meanwhile makes its result outdated.
    Loading(u64),
    Known(Arc<KeyCounts>),
}

#[derive(Debug)]
struct CachedCounts {
    changed_at: Position,
    state: State,
}

/// The cached counts. The lock is held for single look-ups.
#[derive(Debug)]
pub(super) struct Counts {
    entries: Arc<Mutex<CachedDevices>>,
}

#[derive(Debug)]
struct CachedDevices {
    by_device: HashMap<DeviceNid, CachedCounts>,
    max_bytes: u64,
    loads: u64,
    /// The keys of a device without an entry may have changed up to here.
    complete_from: Position,
    /// The position of the latest change of any device.
    latest: Position,
}

impl Counts {
    /// No counts, which follow the changes after `started_at`.
    pub(super) fn new(started_at: Position, budget: &Budget) -> Self {
        let entries = Arc::new(Mutex::new(CachedDevices {
            by_device: HashMap::new(),
            max_bytes: budget.share(Part::KeyCounts),
            loads: 0,
            complete_from: started_at,
            latest: started_at,
        }));
        let weighed = Arc::clone(&entries);
        budget.watch(Part::KeyCounts, move || lock(&weighed).bytes());
        Self { entries }
    }

    /// Forgets everything, and goes on with the changes after `upto`.
    pub(super) fn restart(&self, upto: Position) {
        let mut entries = lock(&self.entries);
        entries.latest = upto.max(entries.latest);
        entries.clear();
    }

    /// Marks the device's keys as changed by the commit at `position`.
    pub(super) fn changed(&self, device: DeviceNid, position: Position) {
        let mut entries = lock(&self.entries);
        entries.make_room_for(device);
        entries.latest = position.max(entries.latest);
        entries.by_device.insert(device, CachedCounts { changed_at: position, state: State::Unknown });
    }

    /// The cached counts.
    fn find(&self, device: DeviceNid) -> Option<Arc<KeyCounts>> {
        match &lock(&self.entries).by_device.get(&device)?.state {
            State::Known(counts) => Some(Arc::clone(counts)),
            State::Unknown | State::Loading(_) => None,
        }
    }

    /// The cached counts, or else a number under which the caller may store the counts that it reads.
    fn find_or_load(&self, device: DeviceNid) -> Result<Arc<KeyCounts>, (u64, Position)> {
        let mut entries = lock(&self.entries);
        entries.make_room_for(device);
        entries.loads += 1;
        let load = entries.loads;
        let changed_at = entries.complete_from;
        let entry = entries.by_device.entry(device).or_insert(CachedCounts { changed_at, state: State::Unknown });
        if let State::Known(counts) = &entry.state {
            return Ok(Arc::clone(counts));
        }
        entry.state = State::Loading(load);
        Err((load, entry.changed_at))
    }

    fn loaded(&self, device: DeviceNid, load: u64, counts: &Arc<KeyCounts>) {
        if let Some(entry) = lock(&self.entries).by_device.get_mut(&device)
            && matches!(entry.state, State::Loading(number) if number == load)
        {
            entry.state = State::Known(Arc::clone(counts));
        }
    }
}

impl CachedDevices {
    fn bytes(&self) -> u64 {
        self.by_device.len() as u64 * DEVICE_BYTES
    }

    fn make_room_for(&mut self, device: DeviceNid) {
        if self.bytes() + DEVICE_BYTES > self.max_bytes && !self.by_device.contains_key(&device) {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.by_device.clear();
        self.complete_from = self.latest;
    }
}

impl Keys {
    /// The remaining one-time and fallback keys of the device, if they are cached.
    pub fn counts_in_memory(&self, device: DeviceNid) -> Option<Arc<KeyCounts>> {
        self.memory.counts.find(device)
    }

    /// The remaining one-time and fallback keys of the device. Cached until they change.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn counts(&self, device: DeviceNid) -> Result<Arc<KeyCounts>, Error> {
        let (load, changed_at) = match self.memory.counts.find_or_load(device) {
            Ok(counts) => return Ok(counts),
            Err(load) => load,
        };
        let mut reader = self.db.read().await?;
        let mut conn = reader.conn();
        let mut one_time = BTreeMap::from([(ALWAYS_COUNTED.to_owned(), 0)]);
        for (algorithm, count) in one_time_keys::counts(&mut conn, device).await? {
            one_time.insert(algorithm, count.unsigned_abs());
        }
        let unused_fallback = one_time_keys::unused_fallback(&mut conn, device).await?;
        let counts = Arc::new(KeyCounts { one_time, unused_fallback, changed_at });
        self.memory.counts.loaded(device, load, &counts);
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_counts_are_cleared_for_another_device_and_stay_for_those_that_are_known() {
        let budget = Budget::new(1 << 20);
        let most = (budget.share(Part::KeyCounts) / DEVICE_BYTES) as i64;
        let counts = Counts::new(Position(1), &budget);
        let load = |device: i64| {
            let Err((load, changed_at)) = counts.find_or_load(DeviceNid(device)) else { return };
            let (one_time, unused_fallback) = (BTreeMap::new(), Vec::new());
            counts.loaded(DeviceNid(device), load, &Arc::new(KeyCounts { one_time, unused_fallback, changed_at }));
        };
        (1..=most).for_each(load);
        let known = || (1..=most).filter(|device| counts.find(DeviceNid(*device)).is_some()).count() as i64;
        assert_eq!(known(), most);
        for device in 1..=most {
            assert!(counts.find_or_load(DeviceNid(device)).is_ok(), "device {device} of {most}");
        }
        counts.changed(DeviceNid(1), Position(2));
        assert_eq!(known(), most - 1, "one has changed, and the others are still known");
        load(most + 1);
        assert_eq!(known(), 0);
    }
}
