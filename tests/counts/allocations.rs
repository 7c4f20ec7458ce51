//! Counts the allocations of the current thread, and their bytes.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// The bytes that were allocated here, less those that were freed here. A thread frees what others gave it, too.
    static BYTES: Cell<isize> = const { Cell::new(0) };
    /// The most that [`BYTES`] has been since a count began.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // While a thread ends, its counter no longer exists; nothing is counted then.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        count_bytes(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count_bytes(-layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count_bytes(more: isize) {
    let now = BYTES.try_with(|bytes| {
        bytes.set(bytes.get() + more);
        bytes.get()
    });
    let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.unwrap_or_default())));
}

/// Counts the allocations of `work` on this thread, and returns its output too. With a single-threaded runtime these are
/// all except the allocations of the database's own threads.
pub async fn during<T>(work: impl Future<Output = T>) -> (u64, T) {
    let before = COUNT.with(Cell::get);
    let output = work.await;
    (COUNT.with(Cell::get) - before, output)
}

/// Returns the output of `make`, and the bytes of this thread's allocations that are left, which the output holds.
pub fn held_by<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = BYTES.with(Cell::get);
    let output = make();
    (BYTES.with(Cell::get).saturating_sub(before).cast_unsigned(), output)
}

/// Returns the output of `make`, and the most bytes that this thread's allocations had meanwhile.
pub fn peak_of<T>(make: impl FnOnce() -> T) -> (usize, T) {
    let before = BYTES.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let output = make();
    (PEAK.with(Cell::get).saturating_sub(before).cast_unsigned(), output)
}
