//! The `sabha` command: flags, then configuration, then what was asked for.

use std::process::ExitCode;

use clap::Parser as _;
use sabha::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(&Cli::parse())
}
