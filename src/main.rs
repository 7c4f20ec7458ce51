//! The `sabha` command: reads the flags, then the configuration, then runs the verb.

use std::process::ExitCode;

use sabha::{
    cli::{self, Cli},
    memory,
    server::private_files,
};

fn main() -> ExitCode {
    memory::give_large_pieces_back();
    private_files::keep_new_files_private();
    cli::run(&Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit()))
}
