//! The stored form of a tally.
//!
//! ```text
//! blob    = changed_at threads through items
//! threads = count (length bytes)*
//! through = count event_nid*
//! items   = count (pos event_nid thread_and_highlight)*
//! ```
//! The numbers are LEB128 varints. `changed_at` is 0 if there is none, otherwise the position and 1. Short ids and positions
//! are differences from the one before, those of events as zigzags. `thread_and_highlight` is twice the number of the
//! thread, from 1, or 0 for the main timeline; and 1 more for a highlighted event.
//!
//! Promise: bytes that are not well formed are an error, never another tally.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sabha_federation::varint::{Malformed, Reader, put_varint, unzigzag, zigzag};

use super::{Item, Tally};
use crate::store::{EventNid, Position};

impl Tally {
    /// The blob for a tally, and for the events through which another event belongs to its thread.
    pub(in crate::push::unread) fn encode(&self, through: &HashSet<EventNid>) -> Vec<u8> {
        let mut blob = Vec::with_capacity(16 + 4 * self.items.len());
        put_varint(&mut blob, self.changed_at.map_or(0, |pos| pos.0.cast_unsigned() + 1));

        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        let mut threads = Vec::new();
        for thread in self.items.iter().filter_map(|item| item.thread.as_deref()) {
            numbers.entry(thread).or_insert_with(|| {
                threads.push(thread);
                threads.len() as u64
            });
        }
        put_varint(&mut blob, threads.len() as u64);
        for thread in threads {
            put_varint(&mut blob, thread.len() as u64);
            blob.extend_from_slice(thread.as_bytes());
        }

        put_varint(&mut blob, through.len() as u64);
        let mut last = 0;
        for EventNid(nid) in through.iter().collect::<BTreeSet<_>>() {
            put_varint(&mut blob, zigzag(nid.wrapping_sub(last)));
            last = *nid;
        }

        put_varint(&mut blob, self.items.len() as u64);
        let (mut last_pos, mut last_event) = (0, 0);
        for Item { pos, event, thread, highlight } in &self.items {
            put_varint(&mut blob, zigzag(pos.0.wrapping_sub(last_pos)));
            put_varint(&mut blob, zigzag(event.0.wrapping_sub(last_event)));
            let thread = thread.as_deref().and_then(|thread| numbers.get(thread)).copied().unwrap_or_default();
            put_varint(&mut blob, 2 * thread + u64::from(*highlight));
            (last_pos, last_event) = (pos.0, event.0);
        }
        blob
    }

    /// Undoes [`Self::encode`].
    ///
    /// # Errors
    /// Fails if no tally was encoded to these bytes. Memory is allocated only for what they have room for.
    pub(in crate::push::unread) fn decode(blob: &[u8]) -> Result<(Self, HashSet<EventNid>), Malformed> {
        let mut reader = Reader::new(blob);
        let changed_at = match reader.varint()?.checked_sub(1).map(i64::try_from) {
            Some(pos) => Some(Position(pos.map_err(|_| Malformed("a position is out of range"))?)),
            None => None,
        };
        let mut threads = Vec::new();
        for _ in 0..reader.varint()? {
            let mut text = Vec::new();
            for _ in 0..reader.varint()? {
                text.push(reader.byte()?);
            }
            let text = String::from_utf8(text).map_err(|_| Malformed("a thread is not UTF-8"))?;
            threads.push(text.into());
        }
        let mut through = HashSet::new();
        let mut last = 0_i64;
        for _ in 0..reader.varint()? {
            last = last.wrapping_add(unzigzag(reader.varint()?));
            through.insert(EventNid(last));
        }
        let mut items = Vec::new();
        let (mut last_pos, mut last_event) = (0_i64, 0_i64);
        for _ in 0..reader.varint()? {
            last_pos = last_pos.wrapping_add(unzigzag(reader.varint()?));
            last_event = last_event.wrapping_add(unzigzag(reader.varint()?));
            let number = reader.varint()?;
            let thread = match usize::try_from(number / 2).unwrap_or(usize::MAX).checked_sub(1) {
                Some(index) => Some(threads.get(index).cloned().ok_or(Malformed("a thread is missing"))?),
                None => None,
            };
            let (pos, event, highlight) = (Position(last_pos), EventNid(last_event), number % 2 == 1);
            items.push(Item { pos, event, thread, highlight });
        }
        if !reader.is_empty() {
            return Err(Malformed("it has bytes after its last event"));
        }
        Ok((Self { items, changed_at }, through))
    }
}
