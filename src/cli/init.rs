//! `sabha init`: writes the configuration of a real server: about twenty lines, with comments.
//!
//! Promise: never overwrites a file, and never writes one that [`crate::config::load`] would refuse.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use ruma::OwnedServerName;

use crate::config::{DatabaseUrl, Problems, RegistrationMode, Sources, load};

/// The path of the file without `-c`.
const DEFAULT_FILE: &str = "./sabha.toml";

#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "Writes to ./sabha.toml, or where -c says; never over an existing file. Takes no -O: what is \
    written there is for every run.\n\n\
    Example without questions:\n  sabha init --yes --server-name example.com --registration token \\\n    \
    --database postgres://sabha:PASSWORD@localhost/sabha -c /etc/sabha/sabha.toml\n\n\
    Then: sabha config check, sabha serve, sabha user create alice --admin")]
pub struct InitArgs {
    /// The name at the end of every user ID, such as example.com; it can never change later
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Database: `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/NAME` [default: SQLite in the data directory]
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// The directory for the SQLite database and the signing keys [default: ./sabha-data]
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// Registration of new accounts: closed, token or open [default: closed]
    #[arg(long, value_name = "MODE")]
    pub registration: Option<RegistrationMode>,
    /// Ask nothing: use the default of each value without a flag
    #[arg(long, visible_alias = "non-interactive")]
    pub yes: bool,
}

/// The reason why no file was written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{} exists and stays as it is; name another file with -c, or edit that one", .0.display())]
    Exists(PathBuf),
    #[error("the server name is missing; add --server-name NAME, such as example.com (it can never change later)")]
    NoServerName,
    #[error("`{0}` is not a server name; write a host name without https://, such as example.com")]
    BadServerName(String),
    #[error("`{0}` ends with a dot, and user IDs are written without it; write `{without}`", without = .0.trim_end_matches('.'))]
    TrailingDot(String),
    #[error(
        "-O sets a key for one run, and `init` writes a file: use its flags (`sabha init --help`), or set `{0}` in the file"
    )]
    Override(String),
    #[error("that is not a database URL; write sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME")]
    BadDatabase,
    #[error("registration: {0}")]
    BadRegistration(String),
    #[error("the configuration would be refused: {0}")]
    Refused(Problems),
    #[error("{} cannot be written: {error}", path.display())]
    NotWritten { path: PathBuf, error: io::Error },
    #[error("the terminal cannot be read or written: {0}")]
    Terminal(#[from] io::Error),
}

/// The values to write into the file.
struct Answers {
    server_name: OwnedServerName,
    data_dir: PathBuf,
    database: Option<DatabaseUrl>,
    registration: RegistrationMode,
}

/// Refuses keys that were given with `-O`: they would not be in the file, and the next run would not have them.
///
/// # Errors
/// [`InitError::Override`].
pub fn check_overrides(overrides: &[String]) -> Result<(), InitError> {
    // Only the key: the value may be a password.
    let key = overrides.first().map(|given| given.split('=').next().unwrap_or_default());
    key.map_or(Ok(()), |key| Err(InitError::Override(key.to_owned())))
}

/// Asks for the values without a flag if `interactive`, and writes the file: the first of `files`, or `./sabha.toml`.
///
/// # Errors
/// Nothing was written.
pub fn run(
    args: &InitArgs,
    files: &[PathBuf],
    interactive: bool,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), InitError> {
    let path = files.first().map_or_else(|| PathBuf::from(DEFAULT_FILE), PathBuf::clone);
    // Checked before the questions. `create_new` below ensures that no file is overwritten.
    if path.exists() {
        return Err(InitError::Exists(path));
    }
    let answers = ask(args, interactive && !args.yes, input, output)?;
    write_checked(&path, &render(&answers))?;
    output.write_all(next_steps(&path, &answers).as_bytes())?;
    Ok(())
}

fn ask(
    args: &InitArgs,
    interactive: bool,
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<Answers, InitError> {
    let mut questions = Questions { interactive, input, output };
    let name = questions.ask(
        args.server_name.clone(),
        "Server name, the end of every user ID, for ever (such as example.com)",
        None,
        server_name,
    )?;
    let (server_name, is_changed) = name.ok_or(InitError::NoServerName)?;
    if is_changed {
        writeln!(questions.output, "The server name is {server_name}, in lower case.")?;
    }

    let data_dir = args.data_dir.clone().unwrap_or_else(|| PathBuf::from("./sabha-data"));
    let database = questions.ask(
        args.database.clone(),
        "Database, sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME",
        Some(&DatabaseUrl::sqlite(&data_dir.join("sabha.db")).to_string()),
        |url| DatabaseUrl::try_from(url).map_err(|_| InitError::BadDatabase),
    )?;

    let mode = args.registration.map(|mode| mode.to_string());
    let registration =
        questions.ask(mode, "Who may make an account, closed, token or open", Some("closed"), |mode| {
            mode.trim().to_ascii_lowercase().parse().map_err(InitError::BadRegistration)
        })?;
    let registration = registration.unwrap_or(RegistrationMode::Closed);
    Ok(Answers { server_name, data_dir, database, registration })
}

/// Parses a server name into lower case, and tells whether that changed it. Names are compared byte by byte, and other
/// servers know only the name in the DNS.
fn server_name(name: String) -> Result<(OwnedServerName, bool), InitError> {
    let lower = name.to_ascii_lowercase();
    let is_changed = lower != name;
    let server_name = OwnedServerName::try_from(lower).map_err(|_| InitError::BadServerName(name))?;
    // Both names are the same in DNS but differ in Matrix, so the users of one would be unknown under the other.
    if server_name.host().ends_with('.') {
        return Err(InitError::TrailingDot(server_name.host().to_owned()));
    }
    Ok((server_name, is_changed))
}

/// A person at a terminal, if there is one.
struct Questions<'a> {
    interactive: bool,
    input: &'a mut dyn BufRead,
    output: &'a mut dyn Write,
}

impl Questions<'_> {
    /// Returns the value of the flag, or else of the first answer that parses: after a typo it asks again. Returns
    /// `None` if there is no terminal to ask at, or if the answer was empty and there is a `default`.
    fn ask<T>(
        &mut self,
        given: Option<String>,
        question: &str,
        default: Option<&str>,
        read: impl Fn(String) -> Result<T, InitError>,
    ) -> Result<Option<T>, InitError> {
        if let Some(given) = given {
            return read(given).map(Some);
        }
        if !self.interactive {
            return Ok(None);
        }
        let default = default.map(|default| format!(" [{default}]"));
        let mut refused = None;
        loop {
            write!(self.output, "{question}{}: ", default.as_deref().unwrap_or_default())?;
            self.output.flush()?;
            let mut answer = String::new();
            // The input has ended, so no one can correct the answer.
            if self.input.read_line(&mut answer)? == 0 {
                return refused.map_or(Ok(None), Err);
            }
            match answer.trim() {
                "" if default.is_some() => return Ok(None),
                "" => {}
                answer => match read(answer.to_owned()) {
                    Ok(value) => return Ok(Some(value)),
                    Err(error) => {
                        writeln!(self.output, "  {error}")?;
                        refused = Some(error);
                    }
                },
            }
        }
    }
}

fn render(answers: &Answers) -> String {
    let Answers { server_name, data_dir, database, registration } = answers;
    let data_dir = toml::Value::String(data_dir.display().to_string());
    let database = match database {
        // Exposed on purpose: this file is where the password is kept, readable by its owner only.
        Some(url) => format!("url = {}", toml::Value::String(url.expose().to_owned())),
        None => "# url = \"postgres://sabha:PASSWORD@localhost/sabha\"   # default: SQLite in data_dir".to_owned(),
    };
    format!(
        "\
# Sabha's configuration. Every key: docs/operating/configuration.md. After a change: `sabha config check`.

# The end of every user ID. It can never change once there is data.
server_name = \"{server_name}\"
# The SQLite database and the signing keys. Back it up.
data_dir = {data_dir}

[database]
{database}

# Where we listen. A reverse proxy in front holds the certificate; we believe its X-Forwarded-For.
[[listeners]]
address = \"127.0.0.1:8008\"
trusted_proxies = [\"127.0.0.1\", \"::1\"]

[registration]
# closed: only `sabha user create`; token: also who has one from `sabha token new`; open: everyone.
mode = \"{registration}\"
"
    )
}

fn write_checked(path: &Path, text: &str) -> Result<(), InitError> {
    let not_written = |error| InitError::NotWritten { path: path.to_owned(), error };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned()),
        _ => not_written(error),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(not_written);
    let checked = written.and_then(|()| {
        let sources = Sources { files: vec![path.to_owned()], ..Sources::default() };
        load(&sources).map(drop).map_err(InitError::Refused)
    });
    if checked.is_err() {
        // We created this file just now, so we may delete it.
        std::fs::remove_file(path).map_err(not_written)?;
    }
    checked
}

fn next_steps(path: &Path, answers: &Answers) -> String {
    let (file, name) = (path.display(), answers.server_name.host());
    let flag = if path == Path::new(DEFAULT_FILE) { String::new() } else { format!(" -c {file}") };
    let token = match answers.registration {
        RegistrationMode::Token => format!("\n  sabha token new --uses 5{flag}       an invitation for five people"),
        RegistrationMode::Closed | RegistrationMode::Open => String::new(),
    };
    format!(
        "\
Wrote {file}. Next:
  sabha config check{flag}
  sabha serve{flag}
  sabha user create alice --admin{flag}       in another terminal; or open the link that `serve` prints{token}

Clients will look for https://{name}. With Caddy on this machine, its whole configuration is:
  {name} {{
    reverse_proxy 127.0.0.1:8008
  }}
"
    )
}

#[cfg(test)]
mod tests;
