//! The mark of a word: whether the word is stored. The word and the writes on their way that carry its row share it.

use std::sync::atomic::{AtomicU8, Ordering};

/// The word has a short id in memory, and no row yet.
const NEW: u8 = 0;
const STORED: u8 = 1;
/// The word was forgotten before it was stored: another process may have given it another short id.
const VOID: u8 = 2;

/// The mark of a word.
#[derive(Debug)]
pub(crate) struct Mark(AtomicU8);

impl Mark {
    pub(super) fn new(stored: bool) -> Self {
        Self(AtomicU8::new(if stored { STORED } else { NEW }))
    }

    pub(super) fn is_stored(&self) -> bool {
        self.0.load(Ordering::Acquire) == STORED
    }

    /// Returns whether nothing may be written with the word's short id.
    pub(in crate::store) fn is_void(&self) -> bool {
        self.0.load(Ordering::Acquire) == VOID
    }

    /// Notes that the word is stored.
    pub(super) fn store(&self) {
        self.0.store(STORED, Ordering::Release);
    }

    /// Notes that the word was forgotten, unless it is stored.
    pub(super) fn give_up(&self) {
        let _ = self.0.compare_exchange(NEW, VOID, Ordering::AcqRel, Ordering::Acquire);
    }
}
