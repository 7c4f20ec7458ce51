//! Memory: the budget of the caches ([`budget`]), and unused memory of the C library's allocator, which goes back to the
//! system: a part at once, by settings at the start, and the rest later, on request.
//!
//! The reasons and the numbers are in `docs/decisions/0013-glibc-tuned-no-lto.md`. On other systems than Linux with
//! glibc, nothing goes back.

pub mod budget;
pub mod cache;
pub mod growing;
mod trims;

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use self::trims::{LOOK_EVERY, Trims};

/// Memory that an allocation takes besides its contents, on average: the allocator's own word, and the rounding to 16
/// bytes.
pub const ALLOCATION_BYTES: usize = 16;

/// Makes the allocator get each large block of memory from the system by itself, so that it goes back when it is freed.
///
/// By default, glibc takes the 19 MiB for a password hash from heaps that it never gives back: 100 registrations took
/// 600 MB. Call this before any other thread exists.
pub fn give_large_pieces_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        const THRESHOLD_BYTES: libc::c_int = 256 << 10;
        const ARENAS: libc::c_int = 4;
        #[expect(unsafe_code, reason = "the C library has no safe way to be told")]
        // SAFETY: called before any other thread exists, with values that mallopt(3) allows.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD_BYTES);
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
    }
}

/// Gives free pages back to the system, at the looks that [`Trims`] chooses; never returns.
///
/// Many requests at once, such as those of all clients after a restart, leave holes between the blocks that stay. glibc
/// keeps those pages until it is asked to trim.
pub async fn give_holes_back() {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut trims = Trims::default();
    loop {
        looks.tick().await;
        let Some(before) = resident_bytes() else { continue };
        if trims.look(before) {
            // A trim cannot fail, and a server that stops need not wait for it.
            let took = tokio::task::spawn_blocking(timed_trim).await.unwrap_or_default();
            let after = resident_bytes().unwrap_or(before);
            trims.trimmed((before, after), took);
            let took_ms = took.as_millis();
            tracing::debug!(before_bytes = before, after_bytes = after, took_ms, "gave free memory back");
        }
    }
}

fn timed_trim() -> Duration {
    let begun = Instant::now();
    trim();
    begun.elapsed()
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "the C library has no safe way to be asked")]
        // SAFETY: malloc_trim(3) may be called at any time from any thread.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// The part of the process that is in RAM, in bytes; `None` if the kernel does not say.
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn holes_between_what_stays_are_given_back() {
        const PIECES: usize = 80_000;
        // 160 MB in small pieces, of which every hundredth stays, so there is nothing to give back at the top of the
        // heap. The size is this large because other tests allocate and free memory meanwhile.
        let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; 2000]).collect();
        let full = resident_bytes().expect("Linux says how large a process is");
        let mut n = 0;
        pieces.retain(|_| {
            n += 1;
            n % 100 == 0
        });
        trim();
        let left = resident_bytes().expect("Linux says how large a process is");
        assert!(left + (40 << 20) < full, "{full} bytes, then {left}");
        assert_eq!(pieces.len(), PIECES / 100);
    }
}
