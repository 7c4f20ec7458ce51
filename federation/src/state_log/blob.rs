//! Blobs of entries by key, the stored form of states and of their differences.
//!
//! ```text
//! blob  = version(1) count entry* checksum(8)
//! entry = key …
//! ```
//! Numbers are LEB128 varints. Entries are sorted by key, and a key is written as its distance from the smallest one it
//! could be; the first key, and event numbers, as the zigzag difference from the one before (from 0 at first). The checksum
//! is the first 8 bytes of the SHA-256 of all that precedes it. The rest of an entry is up to its user.
//!
//! Promise: a blob that is damaged, or that [`BlobWriter`] would not have written, is an error.

use super::Membership;
use crate::{
    ids::{EventNid, KeyNid},
    varint::{Malformed, Reader, checksum, put_varint, unzigzag, zigzag},
};

/// Enough against damage: a damaged blob passes once in 2⁶⁴ times. It is no defence against somebody who writes blobs.
pub(crate) const CHECKSUM_BYTES: usize = 8;

/// The code for keys that are not memberships. No [`Membership::code`] is 0.
const NO_MEMBERSHIP: u8 = 0;

/// Errors of reading a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer release, or damaged in its first byte.
    #[error("it has the unknown format version {0}")]
    UnknownVersion(u8),
    #[error("it is damaged: {0}")]
    Corrupt(&'static str),
}

impl From<Malformed> for CodecError {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Corrupt(reason)
    }
}

/// A blob that is being written. Its entries come in the order of keys, each key once.
pub(crate) struct BlobWriter {
    blob: Vec<u8>,
    last_key: Option<i64>,
    last_event: i64,
}

impl BlobWriter {
    /// The start of a blob of `count` entries, for which `entry_bytes` each are allocated.
    pub fn new(version: u8, count: usize, entry_bytes: usize) -> Self {
        let mut blob = Vec::with_capacity(16 + count * entry_bytes);
        blob.push(version);
        put_varint(&mut blob, count as u64);
        Self { blob, last_key: None, last_event: 0 }
    }

    /// Starts the entry of `key`, which is greater than the last one.
    pub fn key(&mut self, KeyNid(key): KeyNid) {
        match self.last_key.replace(key) {
            // The true difference of two i64 fits a u64, and wrapping gives just that.
            Some(last_key) => put_varint(&mut self.blob, key.wrapping_sub(last_key) as u64 - 1),
            None => self.signed(key),
        }
    }

    pub fn event(&mut self, EventNid(event_nid): EventNid) {
        let last_event = std::mem::replace(&mut self.last_event, event_nid);
        self.signed(event_nid.wrapping_sub(last_event));
    }

    pub fn membership(&mut self, membership: Option<Membership>) {
        self.byte(membership.map_or(NO_MEMBERSHIP, Membership::code));
    }

    pub fn signed(&mut self, number: i64) {
        put_varint(&mut self.blob, zigzag(number));
    }

    pub fn byte(&mut self, byte: u8) {
        self.blob.push(byte);
    }

    /// The blob, with its checksum.
    pub fn finish(mut self) -> Vec<u8> {
        let checksum: [u8; CHECKSUM_BYTES] = checksum(&[&self.blob]);
        self.blob.extend_from_slice(&checksum);
        self.blob
    }
}

/// A blob that is being read. Its methods are called in the order of the writer's.
pub(crate) struct BlobReader<'a> {
    rest: Reader<'a>,
    count: usize,
    last_key: Option<i64>,
    last_event: i64,
}

impl<'a> BlobReader<'a> {
    /// Checks version and checksum, and that the blob has room for its entries, which have at least `min_entry_bytes`
    /// each.
    pub fn open(blob: &'a [u8], version: u8, min_entry_bytes: usize) -> Result<Self, CodecError> {
        let found = *blob.first().ok_or(CodecError::Corrupt("it is empty"))?;
        if found != version {
            return Err(CodecError::UnknownVersion(found));
        }
        let (content, stored) = blob
            .split_last_chunk::<CHECKSUM_BYTES>()
            .filter(|(content, _)| !content.is_empty())
            .ok_or(CodecError::Corrupt("it is shorter than its checksum"))?;
        if checksum::<CHECKSUM_BYTES>(&[content]) != *stored {
            return Err(CodecError::Corrupt("its checksum is wrong"));
        }
        let mut rest = Reader::new(&content[1..]);
        let count = usize::try_from(rest.varint()?)
            .ok()
            .filter(|count| *count <= rest.len() / min_entry_bytes)
            .ok_or(CodecError::Corrupt("it names more entries than it has room for"))?;
        Ok(Self { rest, count, last_key: None, last_event: 0 })
    }

    /// The number of entries. Memory may be allocated for as many.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn key(&mut self) -> Result<KeyNid, CodecError> {
        let distance = self.rest.varint()?;
        let key = match self.last_key {
            Some(last_key) => last_key
                .checked_add(1)
                .and_then(|smallest| smallest.checked_add_unsigned(distance))
                .ok_or(CodecError::Corrupt("a key is out of range"))?,
            None => unzigzag(distance),
        };
        self.last_key = Some(key);
        Ok(KeyNid(key))
    }

    pub fn event(&mut self) -> Result<EventNid, CodecError> {
        self.last_event = self.last_event.wrapping_add(self.signed()?);
        Ok(EventNid(self.last_event))
    }

    pub fn membership(&mut self) -> Result<Option<Membership>, CodecError> {
        membership_of(self.byte()?)
    }

    pub fn signed(&mut self) -> Result<i64, CodecError> {
        Ok(unzigzag(self.rest.varint()?))
    }

    pub fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.rest.byte()?)
    }

    /// Checks that nothing is left.
    pub fn end(self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Corrupt("it has bytes after its last entry")) }
    }
}

/// The membership that [`BlobWriter::membership`] wrote as `code`.
pub(crate) fn membership_of(code: u8) -> Result<Option<Membership>, CodecError> {
    match code {
        NO_MEMBERSHIP => Ok(None),
        code => Membership::from_code(code).map(Some).ok_or(CodecError::Corrupt("a membership is unknown")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const EVERY_MEMBERSHIP: [Option<Membership>; 6] = [
        None,
        Some(Membership::Join),
        Some(Membership::Invite),
        Some(Membership::Leave),
        Some(Membership::Ban),
        Some(Membership::Knock),
    ];

    /// A blob whose checksum is right, whatever its content is.
    pub(crate) fn sealed(content: &[u8]) -> Vec<u8> {
        [content, &checksum::<CHECKSUM_BYTES>(&[content])].concat()
    }

    /// Checks that sealed content is refused, or is exactly the blob of what it decodes to. The checksum keeps damage out;
    /// behind it the reader must be safe by itself, because anyone can compute one.
    pub(crate) fn check_sealed<T>(
        content: &[u8],
        decode: impl Fn(&[u8]) -> Result<T, CodecError>,
        encode: impl Fn(&T) -> Vec<u8>,
    ) {
        let blob = sealed(content);
        if let Ok(decoded) = decode(&blob) {
            assert_eq!(encode(&decoded), blob);
        }
    }

    /// As [`check_sealed`], with one byte of the content of a good blob changed.
    pub(crate) fn check_flipped<T>(
        blob: &[u8],
        (at, flip): (usize, u8),
        decode: impl Fn(&[u8]) -> Result<T, CodecError>,
        encode: impl Fn(&T) -> Vec<u8>,
    ) {
        let mut content = blob[..blob.len() - CHECKSUM_BYTES].to_vec();
        let at = at % content.len();
        content[at] ^= flip;
        check_sealed(&content, decode, encode);
    }

    /// Checks that a blob with any changed byte, a cut one, and a longer one are errors.
    pub(crate) fn check_damage<T>(blob: &[u8], decode: impl Fn(&[u8]) -> Result<T, CodecError>) {
        for at in 0..blob.len() {
            for flip in 1..=u8::MAX {
                let mut damaged = blob.to_vec();
                damaged[at] ^= flip;
                assert!(decode(&damaged).is_err(), "byte {at} flipped by {flip}");
            }
            assert!(decode(&blob[..at]).is_err(), "cut to {at} bytes");
            assert!(decode(&blob[at + 1..]).is_err(), "without its first {} bytes", at + 1);
        }
        assert!(decode(&[blob, &[0]].concat()).is_err());
    }
}
