//! The `sabha` command: flags, then configuration, then what was asked for.

use std::process::ExitCode;

use sabha::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(&Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit()))
}
