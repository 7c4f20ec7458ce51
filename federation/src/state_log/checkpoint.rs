//! The stored form of a whole state: one blob instead of a row per key.
//!
//! ```text
//! entry = key event_nid pos membership(1)
//! ```
//! Around and between the entries it is as `blob` says. `pos` is written as the zigzag difference from the entry before
//! (from 0 at first).
//!
//! Promise: a damaged blob is an error, never a smaller or another state. The result of [`decode`] is sorted, without
//! repeats, and encodes to the same bytes again.

use super::{
    StateEntry,
    blob::{BlobReader, BlobWriter, CodecError},
};
use crate::ids::{KeyNid, Position};

/// The version of the format, so that a later format can stand beside this one.
const VERSION: u8 = 1;

/// The size of the smallest entry: three varints of one byte, and the membership.
const MIN_ENTRY_BYTES: usize = 4;

/// The usual size of an entry: numbers given out together are close together, so most take one or two bytes.
const USUAL_ENTRY_BYTES: usize = 7;

/// The blob for a state that is sorted by key, without repeats.
///
/// # Panics
/// Panics if it is not: such a blob could not be read back.
pub fn encode(entries: &[(KeyNid, StateEntry)]) -> Vec<u8> {
    assert!(entries.is_sorted_by(|(left, _), (right, _)| left < right), "a checkpoint has each key once, in order");
    let mut blob = BlobWriter::new(VERSION, entries.len(), USUAL_ENTRY_BYTES);
    let mut last_pos = 0_i64;
    for (key, StateEntry { event_nid, pos: Position(pos), membership }) in entries.iter().copied() {
        blob.key(key);
        blob.event(event_nid);
        blob.signed(pos.wrapping_sub(last_pos));
        blob.membership(membership);
        last_pos = pos;
    }
    blob.finish()
}

/// The state in a blob, sorted by key.
///
/// # Errors
/// Fails if these are not exactly the bytes that [`encode`] gave. Memory is allocated only for as many entries as the
/// blob has room for.
pub fn decode(blob: &[u8]) -> Result<Vec<(KeyNid, StateEntry)>, CodecError> {
    let mut blob = BlobReader::open(blob, VERSION, MIN_ENTRY_BYTES)?;
    let mut entries = Vec::with_capacity(blob.count());
    let mut last_pos = 0_i64;
    for _ in 0..blob.count() {
        let (key, event_nid) = (blob.key()?, blob.event()?);
        last_pos = last_pos.wrapping_add(blob.signed()?);
        let membership = blob.membership()?;
        entries.push((key, StateEntry { event_nid, pos: Position(last_pos), membership }));
    }
    blob.end()?;
    Ok(entries)
}

#[cfg(test)]
mod tests;
