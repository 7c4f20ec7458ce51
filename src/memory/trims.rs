//! The rule that says when unused memory goes back to the system.
//!
//! The size of the process shows that it has grown, but not that memory was freed: a burst of requests makes it large, and
//! what it leaves stays in the heap without any sign. glibc can tell how many bytes are free (`mallinfo2`), but that walks
//! the heap like a trim, and counts pages that went back long ago. So each growth is followed by trims, first after a
//! few looks and then more and more rarely: memory that was in use for a while goes back within about the same time
//! again. Later, such as after rooms were evicted, it goes back within [`MAX_WAIT`].

use std::time::Duration;

/// The interval at which we read the size of the process, from a file in `/proc`.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The bytes that make a trim worthwhile, at least.
const WORTH_BYTES: u64 = 8 << 20;

/// For a large process, this part of its size makes a trim worthwhile: the cost of a trim grows with the size too.
const WORTH_PART: u64 = 16;

/// The largest number of looks between two trims: some ten minutes. A trim that finds nothing takes about 10 ms for each
/// 100,000 free blocks.
const MAX_WAIT: u32 = 64;

/// Trims take a hundredth of the time at most: a trim walks all free memory, and other threads that allocate from the same
/// heap wait. One that gives 100 MB back takes some 20 ms.
const COST_OF_LOOK: Duration = Duration::from_millis(100);

/// The trims so far, as far as they matter for the next one. Numbers of looks count from the last trim.
#[derive(Debug)]
pub(super) struct Trims {
    /// The smallest size since the last trim. Growth counts from it; otherwise memory that shrank by itself could grow back
    /// unnoticed.
    smallest: u64,
    looks: u32,
    /// The look at which the process trims without having grown.
    wait: u32,
    /// The look before which the process does not trim, because the last trim took long.
    rest: u32,
}

impl Default for Trims {
    fn default() -> Self {
        Self { smallest: u64::MAX, looks: 0, wait: 1, rest: 0 }
    }
}

impl Trims {
    /// Returns whether to trim at this look, which found the process at this size.
    pub(super) fn look(&mut self, bytes: u64) -> bool {
        self.looks = self.looks.saturating_add(1);
        if bytes >= self.smallest.saturating_add(worth(self.smallest)) {
            self.wait = 1;
        }
        self.smallest = self.smallest.min(bytes);
        self.looks >= self.wait.max(self.rest)
    }

    /// Notes a trim, with the sizes before and after it.
    pub(super) fn trimmed(&mut self, (before, after): (u64, u64), took: Duration) {
        let helped = before >= after.saturating_add(worth(after));
        let wait = if helped { 1 } else { self.wait.saturating_mul(2).min(MAX_WAIT) };
        let rest = u32::try_from(took.as_millis() / COST_OF_LOOK.as_millis()).unwrap_or(u32::MAX);
        *self = Self { smallest: after, looks: 0, wait, rest };
    }
}

fn worth(bytes: u64) -> u64 {
    WORTH_BYTES.max(bytes / WORTH_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The looks at which a process trims. `sizes` has its size at each look, and the size that a trim there would leave,
    /// in MiB.
    fn trims(sizes: impl IntoIterator<Item = (u64, u64)>, took: Duration) -> Vec<usize> {
        let mut trims = Trims::default();
        let at_look = |(look, (before, after)): (usize, (u64, u64))| {
            let is_trimmed = trims.look(before << 20);
            if is_trimmed {
                trims.trimmed((before << 20, after << 20), took);
            }
            is_trimmed.then_some(look)
        };
        sizes.into_iter().enumerate().filter_map(at_look).collect()
    }

    /// `looks` looks at a process of `size` MiB, of which a trim would leave `left`.
    fn stays(size: u64, left: u64, looks: usize) -> impl Iterator<Item = (u64, u64)> {
        std::iter::repeat_n((size, left), looks)
    }

    fn check(sizes: impl IntoIterator<Item = (u64, u64)>, expected: &[usize]) {
        assert_eq!(trims(sizes, Duration::ZERO), expected);
    }

    #[test]
    fn trims_follow_growth_and_one_another() {
        // At rest, more and more rarely, but for ever.
        check(stays(30, 30, 260), &[0, 2, 6, 14, 30, 62, 126, 190, 254]);
        // A burst grows and is over at the next look. The trim after its growth gave nothing back, the next one does.
        check(
            stays(30, 30, 1).chain(stays(800, 800, 1)).chain(stays(800, 60, 2)).chain(stays(60, 60, 9)),
            &[0, 1, 3, 4, 6, 10],
        );
        // A burst that lasts 20 looks: what it leaves goes back within as many again.
        check(
            stays(30, 30, 1).chain(stays(800, 800, 20)).chain(stays(800, 60, 11)).chain(stays(60, 60, 1)),
            &[0, 1, 3, 7, 15, 31, 32],
        );
        // Memory that is freed after hours goes back within 64 looks.
        check(
            stays(800, 800, 1000).chain(stays(800, 60, 23)).chain(stays(60, 60, 1)),
            &[0, 2, 6, 14, 30, 62, 126, 190, 254, 318, 382, 446, 510, 574, 638, 702, 766, 830, 894, 958, 1022, 1023],
        );
        // A process that keeps growing trims at each look, and a small growth is none: a sixteenth, and 8 MiB at least.
        check([(100, 100), (108, 108), (116, 116), (124, 124)], &[0, 1, 2, 3]);
        check([(100, 100), (107, 107), (108, 108), (108, 108)], &[0, 2]);
        check([(1600, 1600), (1699, 1699), (1700, 1700)], &[0, 2]);
        // Growth counts from the smallest size.
        check([(100, 100), (100, 100), (100, 100), (50, 50), (60, 60)], &[0, 2, 4]);
    }

    #[test]
    fn trims_take_a_hundredth_of_the_time() {
        let growing = || (1..=40).map(|step| (step * 100, step * 100));
        assert_eq!(trims(growing(), Duration::from_millis(199)), trims(growing(), Duration::ZERO));
        let second = Duration::from_secs(1);
        assert_eq!(trims(growing(), second), [0, 10, 20, 30]);
        // A trim that took very long is not repeated for a day, and the rule survives numbers without sense.
        assert_eq!(trims(growing(), Duration::MAX), [0]);
    }
}
