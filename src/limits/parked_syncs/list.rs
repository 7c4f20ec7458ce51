//! Waiting syncs in the order of their arrival, with the size of their filters.

use std::{cmp::Reverse, sync::Arc};

use super::Signal;
use crate::{filter::SyncFilter, memory::cache::HasBytes as _, store::DeviceNid};

/// A waiting sync.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) device: DeviceNid,
    filter: Arc<SyncFilter>,
    /// The size of the filter. The one for all requests without a filter counts as nothing.
    filter_bytes: u64,
    pub(super) signal: Arc<Signal>,
}

/// Waiting syncs of a user.
#[derive(Debug, Default)]
pub(super) struct List {
    syncs: Vec<Waiting>,
    /// The size of all filters, each counted once.
    filter_bytes: u64,
}

impl Waiting {
    pub(super) fn new(device: DeviceNid, filter: Arc<SyncFilter>, signal: Arc<Signal>) -> Self {
        let filter_bytes = if Arc::ptr_eq(&filter, &SyncFilter::of_all()) { 0 } else { filter.bytes() };
        Self { device, filter, filter_bytes, signal }
    }

    fn shares_filter(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.filter, &other.filter)
    }
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.syncs.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.syncs.iter()
    }

    pub(super) fn push(&mut self, sync: Waiting) {
        if !self.iter().any(|other| other.shares_filter(&sync)) {
            self.filter_bytes += sync.filter_bytes;
        }
        self.syncs.push(sync);
    }

    /// Removes the oldest of these syncs.
    pub(super) fn remove_first(&mut self, of: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let sync = self.syncs.remove(self.syncs.iter().position(of)?);
        if !self.iter().any(|other| other.shares_filter(&sync)) {
            self.filter_bytes -= sync.filter_bytes;
        }
        Some(sync)
    }

    /// Removes all syncs with the largest filter, and so on, until the filters take at most `max_filter_bytes`. Of
    /// filters with the same size, the one that has been here for longer goes first. The filter of the newest sync
    /// stays.
    pub(super) fn remove_largest(&mut self, max_filter_bytes: u64) -> Vec<Waiting> {
        let mut removed = Vec::new();
        while self.filter_bytes > max_filter_bytes
            && let Some(index) = self.largest()
        {
            // All of them: fewer would free nothing.
            let filter = Arc::clone(&self.syncs[index].filter);
            self.filter_bytes -= self.syncs[index].filter_bytes;
            removed.extend(self.syncs.extract_if(.., |sync| Arc::ptr_eq(&sync.filter, &filter)));
        }
        removed
    }

    /// The oldest sync with the largest filter, except for the filter of the newest one.
    fn largest(&self) -> Option<usize> {
        let newest = self.syncs.last()?;
        let others = self.iter().enumerate().filter(|(_, sync)| sync.filter_bytes > 0 && !sync.shares_filter(newest));
        others.max_by_key(|(index, sync)| (sync.filter_bytes, Reverse(*index))).map(|(index, _)| index)
    }
}
