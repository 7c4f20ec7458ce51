//! Chance: random numbers that follow from the seed alone.

use std::ops::RangeInclusive;

use ::rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// A source of random numbers. Each part of a simulation has its own, so that a part that draws once more leaves the others
/// as they were.
pub(super) struct Rand(StdRng);

impl Rand {
    /// The numbers of one part, which has a name of eight bytes.
    pub fn new(seed: u64, part: &[u8; 8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(part);
        Self(StdRng::from_seed(bytes))
    }

    /// Returns `true` this often.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub fn between(&mut self, range: RangeInclusive<i64>) -> i64 {
        self.0.random_range(range)
    }

    /// An index of a list with `count` entries, which is not empty.
    pub fn index(&mut self, count: usize) -> usize {
        self.0.random_range(0..count)
    }

    /// An entry of a list, which is not empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        from.choose(&mut self.0).expect("the list has entries")
    }

    /// Bytes for a key.
    pub fn secret(&mut self) -> [u8; 32] {
        self.0.random()
    }
}
