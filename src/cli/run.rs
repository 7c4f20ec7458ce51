//! Runs the verb of a parsed command line.

use std::{
    error::Error,
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use super::{
    Cli, Command, FederationCommand, HealthcheckArgs, config, federation,
    healthcheck::{self, Expected},
    init,
    operator::{Operator, no_server},
    token, user,
};
use crate::{
    config::{Config, Listener, ListenerPlace, Loaded, Resource, Sources, load},
    http::listen::Address,
    report::Report,
    server::{self, StartError},
};

/// Carries out the verb. Results go to standard output, and an error goes to standard error in one line.
pub fn run(cli: &Cli) -> ExitCode {
    let sources = cli.sources();
    let done: Result<ExitCode, Box<dyn Error>> = match cli.command() {
        Command::Serve(_) => with_config(&sources, serve),
        Command::Init(args) => {
            let interactive = io::stdin().is_terminal() && !args.yes;
            init::check_overrides(&sources.overrides)
                .and_then(|()| {
                    init::run(&args, &sources.files, interactive, &mut io::stdin().lock(), &mut io::stdout())
                })
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into)
        }
        Command::Config(command) => {
            config::run(&command, &sources, &mut io::stdout(), &mut io::stderr()).map_err(Into::into)
        }
        Command::User(command) => {
            with_config(&sources, |loaded| operate(loaded, async |operator| user::run(command, &operator).await))
        }
        Command::Token(command) => {
            with_config(&sources, |loaded| operate(loaded, async |operator| token::run(command, &operator).await))
        }
        Command::Federation(FederationCommand::Keys(command)) => {
            with_config(&sources, |loaded| operate(loaded, async |operator| federation::run(command, &operator).await))
        }
        Command::Healthcheck(args) => with_config(&sources, |loaded| is_healthy(&args, &loaded.config)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("sabha: {}", Report(&*error));
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Loads the configuration, or reports all its problems.
fn with_config(sources: &Sources, then: impl FnOnce(Loaded) -> Outcome) -> Outcome {
    match load(sources) {
        Ok(loaded) => then(loaded),
        Err(problems) => {
            config::report(&problems, &mut io::stderr())?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn serve(loaded: Loaded) -> Outcome {
    server::log::install(&loaded.config.log);
    server::limits::raise_open_files();
    runtime()?.block_on(server::run(loaded, &mut io::stdout()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a verb that needs the database, through the running server if there is one.
fn operate(loaded: Loaded, verb: impl AsyncFnOnce(Operator) -> Result<(), Box<dyn Error>>) -> Outcome {
    runtime()?.block_on(async {
        let operator = Operator::reach(loaded.config).await?;
        let closing = operator.clone();
        let done = verb(operator).await;
        closing.close().await;
        done.map(|()| ExitCode::SUCCESS)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(StartError::Runtime)
}

fn is_healthy(args: &HealthcheckArgs, config: &Config) -> Outcome {
    let target = match args.address {
        Some(address) => Address::Tcp(address),
        None => first_listener(config).ok_or(
            "every listener of the configuration speaks TLS, which this check does not: add one with `unix = PATH`, or name \
             one without TLS with --address",
        )?,
    };
    let expected = match args.address {
        // With an address, the check is about the server there. Only a configuration can name that server.
        Some(_) if config.is_local() => Expected::default(),
        Some(_) => Expected { server_name: Some(config.server_name.clone()), key_id: None },
        None => {
            Expected::of_data_dir(&config.data_dir, config.server_name.clone())?.ok_or_else(|| no_server(config))?
        }
    };
    let health = runtime()?.block_on(healthcheck::healthcheck(&target, &expected));
    if args.json {
        let (name, error) = (health.as_ref().ok(), health.as_ref().err());
        println!(
            "{}",
            serde_json::json!({
                "healthy": health.is_ok(), "address": target.to_string(), "server_name": name, "error": error,
            })
        );
    } else {
        match &health {
            Ok(name) => println!("{target} is healthy ({name})."),
            Err(problem) => eprintln!("sabha: {problem}"),
        }
    }
    Ok(if health.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The address to ask for health: the first plain-HTTP listener, preferably one for clients.
fn first_listener(config: &Config) -> Option<Address> {
    let plain = || config.listeners.iter().filter(|listener| listener.tls.is_none());
    let chosen = plain().find(|listener| listener.serves(Resource::Client)).or_else(|| plain().next());
    chosen.and_then(Listener::place).map(|place| match place {
        ListenerPlace::Tcp(address) => Address::Tcp(address),
        ListenerPlace::Unix { path, mode } => Address::Unix { path, mode: mode.bits() },
    })
}
