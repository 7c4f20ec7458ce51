//! Runs Complement against homeservers that are local processes, without Docker.
//!
//! `run.sh` beside this package puts the parts together: [`engine`] takes the place of Docker, launchers call
//! [`certificate`], [`compare`] judges a run and [`score`] writes the table. All of them use only loopback.

mod certificate;
mod compare;
mod engine;
mod expected;
mod outcome;
mod score;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "Runs the Complement suite against homeservers that are local processes.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the part of the Docker API that Complement uses, until a signal or the end of the parent process.
    Engine(engine::Arguments),
    /// End what an engine left behind. Started by the engine, not by people.
    #[command(hide = true)]
    Janitor(engine::janitor::Arguments),
    /// Sign a server's certificate with a CA.
    Certificate(certificate::Arguments),
    /// Compare a run with the expectations. Fails on any difference.
    Compare(compare::Arguments),
    /// Print the score by package, in Markdown.
    Score(score::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Engine(arguments) => engine::run(&arguments).map(|()| true),
        Command::Janitor(arguments) => engine::janitor::run(&arguments).map(|()| true),
        Command::Certificate(arguments) => certificate::run(&arguments).map(|()| true),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Score(arguments) => score::run(&arguments).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sabha-complement: {error}");
            ExitCode::from(2)
        }
    }
}
