//! A fingerprint of a room's state that does not depend on the way to it.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::StateEntry;
use crate::ids::{EventNid, KeyNid};

/// The secret of a database with which the states of its rooms are hashed. Without it, somebody who guesses the short ids of
/// keys and events could choose state events whose hashes add up to the same sum.
#[derive(Clone)]
pub struct StateHashKey(Arc<Hmac<Sha256>>);

impl StateHashKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        // A shorter key is filled up with zeros.
        let mut block = [0; 64];
        block[..secret.len()].copy_from_slice(secret);
        Self(Arc::new(Hmac::new(&block.into())))
    }

    fn entry(&self, key: KeyNid, event_nid: EventNid) -> u128 {
        let mut mac = Hmac::clone(&self.0);
        mac.update(&key.0.to_be_bytes());
        mac.update(&event_nid.0.to_be_bytes());
        let digest = mac.finalize().into_bytes();
        u128::from_be_bytes(std::array::from_fn(|index| digest[index]))
    }
}

impl fmt::Debug for StateHashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateHashKey")
    }
}

/// 128 bits that two states of one database share only if every key has the same event in both.
///
/// It is the sum, modulo 2¹²⁸, of the first half of `HMAC-SHA-256(secret, key_nid ‖ event_nid)` (both big-endian)
/// over the entries. A sum has no order and can be taken back, so each change costs two hashes however
/// large the room is. It finds damage and equal states; it proves nothing to others.
///
/// Positions are left out: state that came back to the same events is the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateHash(u128);

impl StateHash {
    /// The hash of the state without entries.
    pub const EMPTY: Self = Self(0);

    /// The hash of a whole state, which has each key once.
    pub fn of(secret: &StateHashKey, entries: &[(KeyNid, StateEntry)]) -> Self {
        entries.iter().fold(Self::EMPTY, |hash, (key, entry)| hash.with(secret, *key, None, Some(entry.event_nid)))
    }

    /// The hash as it is stored.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The hash that was stored as `bytes`.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The hash of the state in which `key` goes from one event to another. `None`: the state lacks the key.
    #[must_use]
    pub fn with(self, secret: &StateHashKey, key: KeyNid, from: Option<EventNid>, to: Option<EventNid>) -> Self {
        if from == to {
            return self;
        }
        let entry = |event_nid: Option<EventNid>| event_nid.map_or(0, |event_nid| secret.entry(key, event_nid));
        Self(self.0.wrapping_sub(entry(from)).wrapping_add(entry(to)))
    }
}
