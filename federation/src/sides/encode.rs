//! The stored form of the changes of a side.
//!
//! ```text
//! entry = key code(1) event_nid?
//! ```
//! Around and between the entries it is as `state_log/blob.rs` says. The code is that of a checkpoint's membership, or
//! `ABSENT` for a key that the state lacks, which has no event.
//!
//! Promise: a damaged blob is an error, never a smaller or another difference. The result of [`decode`] encodes to the same
//! bytes again.

use crate::{
    held::{Held, StateDelta},
    state_log::{
        CodecError,
        blob::{BlobReader, BlobWriter, membership_of},
    },
};

/// The version of the format, so that a later format can stand beside this one.
const VERSION: u8 = 1;

/// The code for keys that the state lacks. Far from those of memberships, so that these can become more.
const ABSENT: u8 = 0xff;

/// The size of the smallest entry: a key of one byte, and `ABSENT`.
const MIN_ENTRY_BYTES: usize = 2;

/// The usual size of an entry: keys and events that were stored together have numbers close together.
const USUAL_ENTRY_BYTES: usize = 7;

/// The blob for the changes of a side.
pub fn encode(delta: &StateDelta) -> Vec<u8> {
    let mut blob = BlobWriter::new(VERSION, delta.len(), USUAL_ENTRY_BYTES);
    for (key, held) in delta.iter() {
        blob.key(key);
        match held {
            Some(Held { event_nid, membership }) => {
                blob.membership(membership);
                blob.event(event_nid);
            }
            None => blob.byte(ABSENT),
        }
    }
    blob.finish()
}

/// The changes in a blob.
///
/// # Errors
/// Fails if these are not exactly the bytes that [`encode`] gave.
pub fn decode(blob: &[u8]) -> Result<StateDelta, CodecError> {
    let mut blob = BlobReader::open(blob, VERSION, MIN_ENTRY_BYTES)?;
    let mut delta = StateDelta::default();
    for _ in 0..blob.count() {
        let key = blob.key()?;
        let held = match blob.byte()? {
            ABSENT => None,
            code => Some(Held { membership: membership_of(code)?, event_nid: blob.event()? }),
        };
        delta.set(key, held);
    }
    blob.end()?;
    Ok(delta)
}

#[cfg(test)]
mod tests;
