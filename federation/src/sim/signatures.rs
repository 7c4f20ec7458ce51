//! Signatures: real ones, or a book of those that were really made, which is a hundred times as fast.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::{
    published_keys::PublicKey,
    received::{Ed25519, Signatures},
};

/// The number of seeds of which one verifies real signatures.
const REAL_EVERY: u64 = 10;

/// The hash of a key, a message and its signature.
type Entry = [u8; 32];

/// The verification of signatures in a simulation.
pub(super) enum SimSignatures {
    Real,
    Book(BTreeSet<Entry>),
}

impl SimSignatures {
    pub fn of_seed(seed: u64) -> Self {
        if seed.is_multiple_of(REAL_EVERY) { Self::Real } else { Self::Book(BTreeSet::new()) }
    }

    /// Notes a signature that was really made.
    pub fn note(&mut self, made: Made) {
        if let Self::Book(book) = self {
            book.extend(made.0.into_inner().unwrap_or_default());
        }
    }
}

impl Signatures for SimSignatures {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        match self {
            Self::Real => Ed25519.verify(key, message, signature),
            Self::Book(book) => book.contains(&entry(key, message, signature)),
        }
    }
}

/// Believes every signature, and notes it. Only for events that were built right before.
#[derive(Default)]
pub(super) struct Made(std::sync::Mutex<Vec<Entry>>);

impl Signatures for Made {
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.lock().expect("nothing panics under the lock").push(entry(key, message, signature));
        true
    }
}

fn entry(key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> Entry {
    Sha256::new().chain_update(key.as_bytes()).chain_update(signature).chain_update(message).finalize().into()
}
