//! `sabha config check` and `sabha config show`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;

use crate::config::{self, Problems, Sources, show};

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Print every problem in the configuration; exits with 1 if there is one
    Check,
    /// Show every value in force and where it comes from; passwords are masked
    Show {
        /// Print a JSON list of `{key, value, origin, from}`
        #[arg(long)]
        json: bool,
    },
}

/// Carries out the verb. Listings go to `output`, problems and warnings to `errors`.
///
/// # Errors
/// Fails only if `output` or `errors` cannot be written.
pub fn run(
    command: &ConfigCommand,
    sources: &Sources,
    output: &mut dyn Write,
    errors: &mut dyn Write,
) -> io::Result<ExitCode> {
    let loaded = match config::load(sources) {
        Ok(loaded) => loaded,
        Err(problems) => {
            report(&problems, errors)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    for warning in &loaded.warnings {
        writeln!(errors, "warning: {warning}")?;
    }
    match command {
        ConfigCommand::Check => {
            let files: Vec<String> = loaded.files.iter().map(|path| path.display().to_string()).collect();
            let read = if files.is_empty() { "no file, only defaults".to_owned() } else { files.join(", ") };
            writeln!(output, "The configuration is good ({read}).")?;
        }
        ConfigCommand::Show { json: false } => output.write_all(show::render(&loaded.entries()).as_bytes())?,
        ConfigCommand::Show { json: true } => {
            serde_json::to_writer_pretty(&mut *output, &loaded.entries())?;
            writeln!(output)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the problems, one per line, and their number.
pub fn report(problems: &Problems, errors: &mut dyn Write) -> io::Result<()> {
    let count = problems.0.len();
    writeln!(errors, "{problems}")?;
    writeln!(errors, "{count} {} in the configuration.", if count == 1 { "problem" } else { "problems" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_with(command: &ConfigCommand, overrides: &[&str]) -> (bool, String, String) {
        let sources =
            Sources { overrides: overrides.iter().map(|text| (*text).to_owned()).collect(), ..Sources::default() };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let code = run(command, &sources, &mut output, &mut errors).expect("memory is writable");
        let text = |bytes| String::from_utf8(bytes).expect("we write UTF-8");
        (code == ExitCode::SUCCESS, text(output), text(errors))
    }

    #[test]
    fn check_counts_the_problems_and_fails() {
        let (good, output, errors) =
            run_with(&ConfigCommand::Check, &["registration.mode=free", "sever_name=example.com"]);
        assert!(!good && output.is_empty());
        assert_eq!(
            errors,
            "-O: registration.mode is wrong: `\"free\"` is not a registration mode; write \"closed\", \"token\" or \"open\"\n\
             -O: sever_name is not a known key; did you mean `server_name`?\n\
             2 problems in the configuration.\n"
        );
    }

    #[test]
    fn check_of_a_good_configuration_warns_on_what_is_allowed() {
        let (good, output, errors) = run_with(&ConfigCommand::Check, &["registration.mode=open"]);
        assert!(good);
        assert_eq!(output, "The configuration is good (no file, only defaults).\n");
        assert!(errors.starts_with("warning: registration.mode is \"open\""), "{errors}");
    }

    #[test]
    fn show_tells_values_and_origins_but_no_password() {
        let overrides = ["database.url=postgres://sabha:hunter2@db/sabha"];
        let (good, text, _) = run_with(&ConfigCommand::Show { json: false }, &overrides);
        assert!(good && !text.contains("hunter2"), "{text}");
        let line = |start: &str| {
            text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("no {start}: {text}"))
        };
        assert!(line("database.url = \"postgres://sabha:***@db/sabha\"").ends_with("# -O"));
        assert!(line("server_name = \"localhost\"").ends_with("# default"));
        assert!(line("listeners[0].address = \"127.0.0.1:8008\"").ends_with("# default"));
        assert!(line("client.base_url = \"http://localhost:8008\"").ends_with("# default"));
        assert!(line("# sessions.access_token_lifetime is unset").ends_with("# default"));

        let (_, json, _) = run_with(&ConfigCommand::Show { json: true }, &overrides);
        let entries: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
        let url = entries.iter().find(|entry| entry["key"] == "database.url").expect("listed");
        assert_eq!(
            url,
            &serde_json::json!({
                "key": "database.url", "value": "postgres://sabha:***@db/sabha", "origin": "flag", "from": "-O",
            })
        );
    }
}
