//! The stored form of a whole state: one blob instead of a row per key.
//!
//! ```text
//! blob  = version(1) count entry* checksum(8)
//! entry = key event_nid pos membership(1)
//! ```
//! The numbers are LEB128 varints. Entries are sorted by key, and a key is written as its distance from
//! the smallest one it could be; `event_nid`, `pos` and the first key as the zigzag difference from the
//! entry before (from 0 at first). The checksum is the first 8 bytes of the SHA-256 of all that precedes it.
//!
//! Promise: a damaged blob is an error, never a smaller or another state. The result of [`decode`] is sorted, without
//! repeats, and encodes to the same bytes again.

use super::{Membership, StateEntry};
use crate::{
    ids::{EventNid, KeyNid, Position},
    varint::{Malformed, Reader, checksum, put_varint, unzigzag, zigzag},
};

/// The version of the format, so that a later format can stand beside this one.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 8;

/// The size of the smallest entry: three varints of one byte, and the membership.
const MIN_ENTRY_BYTES: usize = 4;

/// The code for keys that are not memberships. No [`Membership::code`] is 0.
const NO_MEMBERSHIP: u8 = 0;

/// Errors of reading a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer release, or damaged in its first byte.
    #[error("the checkpoint has the unknown format version {0}")]
    UnknownVersion(u8),
    #[error("the checkpoint is damaged: {0}")]
    Corrupt(&'static str),
}

impl From<Malformed> for CodecError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Corrupt(reason)
    }
}

/// The blob for a state that is sorted by key, without repeats.
///
/// # Panics
/// Panics if it is not: such a blob could not be read back.
pub fn encode(entries: &[(KeyNid, StateEntry)]) -> Vec<u8> {
    assert!(entries.is_sorted_by(|(left, _), (right, _)| left < right), "a checkpoint has each key once, in order");
    // Numbers given out together are close together: mostly one or two bytes for each.
    let mut blob = Vec::with_capacity(16 + entries.len() * 7);
    blob.push(VERSION);
    put_varint(&mut blob, entries.len() as u64);

    let mut last: Option<(i64, i64, i64)> = None;
    for (KeyNid(key), StateEntry { event_nid: EventNid(event_nid), pos: Position(pos), membership }) in
        entries.iter().copied()
    {
        match last {
            // The true difference of two i64 fits a u64, and wrapping gives just that.
            Some((last_key, ..)) => put_varint(&mut blob, key.wrapping_sub(last_key) as u64 - 1),
            None => put_varint(&mut blob, zigzag(key)),
        }
        let (_, last_event, last_pos) = last.unwrap_or_default();
        put_varint(&mut blob, zigzag(event_nid.wrapping_sub(last_event)));
        put_varint(&mut blob, zigzag(pos.wrapping_sub(last_pos)));
        blob.push(membership.map_or(NO_MEMBERSHIP, Membership::code));
        last = Some((key, event_nid, pos));
    }
    let checksum: [u8; CHECKSUM_BYTES] = checksum(&[&blob]);
    blob.extend_from_slice(&checksum);
    blob
}

/// The state in a blob, sorted by key.
///
/// # Errors
/// Fails if these are not exactly the bytes that [`encode`] gave. Memory is allocated only for as many entries as the
/// blob has room for.
pub fn decode(blob: &[u8]) -> Result<Vec<(KeyNid, StateEntry)>, CodecError> {
    let version = *blob.first().ok_or(CodecError::Corrupt("it is empty"))?;
    if version != VERSION {
        return Err(CodecError::UnknownVersion(version));
    }
    let (content, stored) = blob
        .split_last_chunk::<CHECKSUM_BYTES>()
        .filter(|(content, _)| !content.is_empty())
        .ok_or(CodecError::Corrupt("it is shorter than its checksum"))?;
    if checksum::<CHECKSUM_BYTES>(&[content]) != *stored {
        return Err(CodecError::Corrupt("its checksum is wrong"));
    }

    let mut reader = Reader::new(&content[1..]);
    let count = usize::try_from(reader.varint()?)
        .ok()
        .filter(|count| *count <= reader.len() / MIN_ENTRY_BYTES)
        .ok_or(CodecError::Corrupt("it names more entries than it has room for"))?;

    let mut entries = Vec::with_capacity(count);
    let mut last: Option<(i64, i64, i64)> = None;
    for _ in 0..count {
        let distance = reader.varint()?;
        let key = match last {
            Some((last_key, ..)) => last_key
                .checked_add(1)
                .and_then(|smallest| smallest.checked_add_unsigned(distance))
                .ok_or(CodecError::Corrupt("a key is out of range"))?,
            None => unzigzag(distance),
        };
        let (_, last_event, last_pos) = last.unwrap_or_default();
        let event_nid = last_event.wrapping_add(unzigzag(reader.varint()?));
        let pos = last_pos.wrapping_add(unzigzag(reader.varint()?));
        let membership = match reader.byte()? {
            NO_MEMBERSHIP => None,
            code => Some(Membership::from_code(code).ok_or(CodecError::Corrupt("a membership is unknown"))?),
        };
        let entry = StateEntry { event_nid: EventNid(event_nid), pos: Position(pos), membership };
        entries.push((KeyNid(key), entry));
        last = Some((key, event_nid, pos));
    }
    if !reader.is_empty() {
        return Err(CodecError::Corrupt("it has bytes after its last entry"));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
