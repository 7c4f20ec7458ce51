//! The `sabha` command: flags, then configuration, then what was asked for.

use std::process::ExitCode;

use sabha::cli::{self, Cli};

fn main() -> ExitCode {
    give_large_memory_back();
    cli::run(&Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit()))
}

/// Left alone, glibc serves the 19 MiB of a password hash from heaps that it never gives back: 100 registrations took
/// 600 MB. With a fixed threshold, they come from the system and go back to it.
fn give_large_memory_back() {
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
