//! A fingerprint of a room's state that does not depend on the way to it.

use sha2::{Digest, Sha256};

use super::StateEntry;
use crate::store::ids::{EventNid, KeyNid};

/// 128 bits that two states share only if every key has the same event in both.
///
/// It is the sum, modulo 2¹²⁸, of the first half of `SHA-256(key_nid ‖ event_nid)` (both big-endian)
/// over the entries. A sum has no order and can be taken back, so each change costs two hashes however
/// large the room is. Unlike XOR it cannot be brought to a wanted value by linear algebra. The numbers
/// that go in are given out by this server, so nobody outside chooses them freely; still, a hash that
/// anyone can compute is for finding damage and equal states, not for proving anything to others.
///
/// Positions are left out: state that came back to the same events is the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateHash(u128);

impl StateHash {
    /// The hash of the state without entries.
    pub const EMPTY: Self = Self(0);

    /// The hash of a whole state, which has each key once.
    pub fn of(entries: &[(KeyNid, StateEntry)]) -> Self {
        let mut hash = Self::EMPTY;
        for (key, entry) in entries {
            hash.add(*key, entry.event_nid);
        }
        hash
    }

    /// The hash as it is stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The hash that was stored as `bytes`.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    pub(super) fn add(&mut self, key: KeyNid, event_nid: EventNid) {
        self.0 = self.0.wrapping_add(entry_hash(key, event_nid));
    }

    pub(super) fn remove(&mut self, key: KeyNid, event_nid: EventNid) {
        self.0 = self.0.wrapping_sub(entry_hash(key, event_nid));
    }
}

fn entry_hash(key: KeyNid, event_nid: EventNid) -> u128 {
    let mut input = [0; 16];
    input[..8].copy_from_slice(&key.0.to_be_bytes());
    input[8..].copy_from_slice(&event_nid.0.to_be_bytes());
    let digest = Sha256::digest(input);
    u128::from_be_bytes(std::array::from_fn(|index| digest[index]))
}
