//! The `sabha` command: flags, then configuration, then what was asked for.

use std::process::ExitCode;

use sabha::{
    cli::{self, Cli},
    memory,
};

fn main() -> ExitCode {
    memory::give_large_pieces_back();
    cli::run(&Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit()))
}
