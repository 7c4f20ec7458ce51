//! The command line: every verb, its flags and its help. Each verb has its own file; [`run`](mod@run) starts it.

pub mod config;
mod federation;
pub mod healthcheck;
pub mod init;
mod operator;
mod run;
mod token;
mod user;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{
    Args, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

use crate::config::{Listener, Sources, TimeSpan};

pub use run::run;

/// A Matrix homeserver: one binary, SQLite or PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "sabha",
    version,
    long_about = "Sabha is a Matrix homeserver: people on it talk through any Matrix client.\n\n\
        Without a verb or a configuration it starts in local mode: server name `localhost`, SQLite in ./sabha-data, listening \
        on 127.0.0.1:8008, and it prints a link where the first admin is made.\n\n\
        Examples:\n  sabha                              try it, on this machine only\n  \
        sabha init                         write the configuration of a real server\n  \
        sabha -c /etc/sabha/sabha.toml     run that server\n  \
        sabha -O registration.mode=token   change one value for this run",
    after_help = "First steps: `sabha`, then open the link it prints. For a real server: `sabha init`, `sabha config check`, \
        `sabha serve`, `sabha user create alice --admin`.\nEvery key of the configuration: docs/operating/configuration.md"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The verb to run; `serve` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that every verb takes, before or after it.
#[derive(Debug, Clone, Default, Args)]
pub struct GlobalArgs {
    /// Read this configuration file; may be repeated, the later wins [default: $SABHA_CONFIG, ./sabha.toml, /etc/sabha/sabha.toml]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Vec<PathBuf>,
    /// Set one key for this run, without quotes, such as `-O server_name=example.com`; may be repeated
    #[arg(short = 'O', long = "set", value_name = "KEY=VALUE", global = true)]
    pub overrides: Vec<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the server (this is what `sabha` alone does)
    Serve(ServeArgs),
    /// Write a configuration file: asks on a terminal, or takes flags
    Init(init::InitArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make and manage accounts
    #[command(subcommand)]
    User(UserCommand),
    /// Make and manage registration tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manage what other servers know of this one
    #[command(subcommand)]
    Federation(FederationCommand),
    /// Check whether the running server is healthy; exits with 0 if it is, for container health checks
    Healthcheck(HealthcheckArgs),
}

#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "SIGTERM or Ctrl-C stops it: running requests are finished first.")]
pub struct ServeArgs {
    /// Listen here instead of where the configuration says: `127.0.0.1:8008` or `unix:/run/sabha.sock`; may be repeated
    #[arg(long, value_name = "PLACE", value_parser = parse_listener)]
    pub listen: Vec<Listener>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Make an account; prints a random password once, unless one is given
    #[command(
        after_help = "Examples:\n  sabha user create alice --admin\n  sabha user create bob --password-stdin < password.txt"
    )]
    Create {
        /// The name before the colon: `alice` for @alice:example.com
        name: String,
        /// Let this user administer the server
        #[arg(long)]
        admin: bool,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the accounts
    List {
        /// Print a JSON list
        #[arg(long)]
        json: bool,
    },
    /// Give an account a new password and sign out all its devices; prints a random one once, unless one is given
    ResetPassword {
        /// The name before the colon
        name: String,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Let an account administer the server; its devices stay signed in
    #[command(
        after_help = "Example: the first account was made by registering in a client\n  sabha user promote alice"
    )]
    Promote {
        /// The name before the colon
        name: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Take the rights of an admin from an account; it stays an ordinary one
    Demote {
        /// The name before the colon
        name: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Close an account for good: it is signed out everywhere and its name is not given out again
    Deactivate {
        /// The name before the colon
        name: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token with which people may register (with `registration.mode = "token"`)
    #[command(after_help = "Example: five accounts, within a week\n  sabha token new --uses 5 --expires 7d")]
    New {
        /// Number of accounts that may be made with it [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        /// Time until it expires, such as 12h or 7d [default: never]
        #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
        expires: Option<TimeSpan>,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tokens with their remaining uses
    List {
        /// Print a JSON list
        #[arg(long)]
        json: bool,
    },
    /// Make a token useless; accounts made with it stay
    Revoke {
        /// The token, as `sabha token list` shows it
        token: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum FederationCommand {
    /// List and replace the keys that this server signs with
    #[command(subcommand)]
    Keys(KeysCommand),
}

#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// List the signing keys that this server has had, oldest first
    List {
        /// Print a JSON list
        #[arg(long)]
        json: bool,
    },
    /// Replace the signing key by a new one; everything signed with the old one stays valid
    #[command(
        after_help = "Back up `signing.key` in the data directory afterwards: the database is refused without it."
    )]
    Rotate {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace the signing key by that of another homeserver with this server's name
    #[command(
        after_help = "FILE is the key file of Synapse or Dendrite, or the bytes of the entry `keypair` in the database of \
        Conduit, conduwuit or tuwunel. Its first key is used from now on; further ones are published as old.\n\
        Stop the other server first, and back up `signing.key` in the data directory afterwards."
    )]
    Import {
        /// The file with the key
        file: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Default, Args)]
pub struct HealthcheckArgs {
    /// Check the server at this address, instead of this server at its first listener
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<SocketAddr>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl Cli {
    /// The verb; without one, `serve`.
    pub fn command(&self) -> Command {
        self.command.clone().unwrap_or_else(|| Command::Serve(ServeArgs::default()))
    }

    /// Reads a command line. `-c` and `-O` work both before and after the verb.
    ///
    /// # Errors
    /// Also returned for help and version, which clap treats as errors; [`clap::Error::exit`] prints them.
    pub fn read<T: Into<OsString>>(line: impl IntoIterator<Item = T>) -> Result<Self, clap::Error> {
        Self::try_parse_from(globals_first(line.into_iter().map(Into::into))).map_err(name_the_verb)
    }

    /// The sources of this run's configuration.
    pub fn sources(&self) -> Sources {
        let mut sources = Sources::of_process(self.global.config.clone(), self.global.overrides.clone());
        if let Some(Command::Serve(serve)) = &self.command {
            sources.listen.clone_from(&serve.listen);
        }
        sources
    }
}

/// Parses the lifetime of a token. Zero is an error.
fn parse_lifetime(text: &str) -> Result<TimeSpan, String> {
    let lifetime: TimeSpan = text.parse()?;
    if lifetime.duration().is_zero() {
        return Err("it would be over at once; write a longer time, such as 12h or 7d".to_owned());
    }
    Ok(lifetime)
}

/// Adds a hint to the error for a misplaced `--listen`: the verb that it belongs to.
fn name_the_verb(mut error: clap::Error) -> clap::Error {
    if matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(flag)) if flag == "--listen") {
        let hint = "'--listen' belongs to a verb: sabha serve --listen 127.0.0.1:8008";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    }
    error
}

/// Moves `-c` and `-O` with their values before the verb. Otherwise clap would drop those before the verb if there are
/// any after it.
fn globals_first(line: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut line = line.peekable();
    let mut globals: Vec<OsString> = line.next().into_iter().collect();
    let mut others = Vec::new();
    while let Some(word) = line.next() {
        let text = word.to_string_lossy();
        if text == "--" {
            others.push(word);
            break;
        }
        if matches!(&*text, "-c" | "-O" | "--config" | "--set") {
            globals.push(word);
            globals.extend(line.next());
        } else if ["-c", "-O", "--config=", "--set="].iter().any(|flag| text.starts_with(flag)) {
            globals.push(word);
        } else {
            others.push(word);
        }
    }
    globals.extend(others);
    globals.extend(line);
    globals
}

fn parse_listener(place: &str) -> Result<Listener, String> {
    if let Some(path) = place.strip_prefix("unix:") {
        return Ok(Listener { unix: Some(PathBuf::from(path)), ..Listener::default() });
    }
    place.parse().map(Listener::tcp).map_err(|_| "write ADDRESS:PORT such as 127.0.0.1:8008, or unix:PATH".to_owned())
}

#[cfg(test)]
mod tests;
