//! The `sabha` command: flags, then configuration, then what was asked for.

use std::process::ExitCode;

use sabha::cli::{self, Cli};

/// The system's allocator keeps the memory of every password hash (19 MiB) for good: 100 registrations took 600 MB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(&Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit()))
}
