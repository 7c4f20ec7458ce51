//! The parts of compact binary formats: numbers in as few bytes as they need, and a checksum.
//!
//! Promise: a number has exactly one form, so bytes that are read and written again are the same bytes.

use sha2::{Digest as _, Sha256};

/// Bytes that are not well formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Appends `value` as a LEB128 varint: seven bits a byte, the low ones first.
pub fn put_varint(blob: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        blob.push(value as u8 | 0x80);
        value >>= 7;
    }
    blob.push(value as u8);
}

/// Maps small numbers of either sign to small numbers: 0, -1, 1, -2 become 0, 1, 2, 3.
pub fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The first bytes of the SHA-256 of `parts`, one after the other.
pub fn checksum<const BYTES: usize>(parts: &[&[u8]]) -> [u8; BYTES] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
    }
    let digest = digest.finalize();
    std::array::from_fn(|index| digest[index])
}

/// Reads bytes from the front.
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of bytes that are left.
    pub fn len(&self) -> usize {
        self.rest.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// # Errors
    /// Fails when nothing is left.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.bytes()?))
    }

    /// The next bytes, as many as the array has.
    ///
    /// # Errors
    /// Fails when fewer are left.
    pub fn bytes<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], Malformed> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(Malformed("it ends too early"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// The next number.
    ///
    /// # Errors
    /// Fails if these are not the bytes that [`put_varint`] gives.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // A zero at the end would be a second way to write the same number.
            if bits << shift >> shift != bits || (shift > 0 && byte == 0) {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is not well formed"))
    }
}
