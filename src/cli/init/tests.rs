//! The file that `init` writes, from flags and from answers.

use super::*;
use crate::config::{Config, DatabaseTarget};

struct Run {
    result: Result<(), InitError>,
    output: String,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn run_in(dir: tempfile::TempDir, args: &InitArgs, typed: Option<&str>) -> Run {
    let path = dir.path().join("sabha.toml");
    let mut output = Vec::new();
    let result =
        run(args, std::slice::from_ref(&path), typed.is_some(), &mut typed.unwrap_or_default().as_bytes(), &mut output);
    Run { result, output: String::from_utf8(output).expect("we write UTF-8"), path, _dir: dir }
}

fn init(args: &InitArgs, typed: Option<&str>) -> Run {
    run_in(tempfile::tempdir().expect("a temporary directory"), args, typed)
}

fn read(run: &Run) -> Config {
    run.result.as_ref().expect("written");
    load(&Sources { files: vec![run.path.clone()], ..Sources::default() }).expect("the file is good").config
}

fn example(server_name: &str) -> InitArgs {
    InitArgs { server_name: Some(server_name.to_owned()), ..InitArgs::default() }
}

#[test]
fn flags_alone_make_a_file_that_is_good() {
    let run = init(&example("example.com"), None);
    let config = read(&run);
    assert_eq!(config.server_name, "example.com");
    assert_eq!(config.database_url().target(), DatabaseTarget::Sqlite("./sabha-data/sabha.db".into()));
    assert_eq!(config.registration.mode, RegistrationMode::Closed);
    assert!(config.listeners[0].trusts(Some([127, 0, 0, 1].into())));
    assert!(run.output.contains("sabha user create alice --admin"), "{}", run.output);
    let lines = std::fs::read_to_string(&run.path).expect("written").lines().count();
    assert!((15..=25).contains(&lines), "{lines} lines");
}

#[test]
fn answers_are_asked_for_what_no_flag_says() {
    let args = InitArgs { registration: Some(RegistrationMode::Token), ..InitArgs::default() };
    let run = init(&args, Some("chat.example.org\npostgres://sabha:hun\"ter2@db/sabha\n"));
    let config = read(&run);
    assert_eq!(config.server_name, "chat.example.org");
    assert_eq!(config.database_url().expose(), "postgres://sabha:hun\"ter2@db/sabha");
    assert_eq!(config.registration.mode, RegistrationMode::Token);
    assert!(!run.output.contains("Who may") && !run.output.contains("ter2"), "{}", run.output);
    assert!(run.output.contains("sabha token new"));
}

#[test]
fn an_empty_answer_takes_the_default() {
    let config = read(&init(&InitArgs::default(), Some("example.com\n\n\n")));
    assert_eq!(config.database.url, None);
    assert_eq!(config.registration.mode, RegistrationMode::Closed);
}

#[test]
fn a_typo_is_asked_again() {
    let typed = "\nhttps://example.com\nexa mple\nExample.com\nmysql://x\nsqlite:x.db\neveryone\n Token \n";
    let run = init(&InitArgs::default(), Some(typed));
    let config = read(&run);
    assert_eq!(config.server_name, "example.com");
    assert_eq!(config.database_url().expose(), "sqlite:x.db");
    assert_eq!(config.registration.mode, RegistrationMode::Token);
    for hint in ["in lower case", "without https://", "that is not a database URL", "\"closed\", \"token\" or \"open\""]
    {
        assert!(run.output.contains(hint), "{hint}: {}", run.output);
    }
    assert_eq!(run.output.matches("Server name, the end").count(), 4, "{}", run.output);
}

#[test]
fn a_server_name_is_written_in_lower_case() {
    let run = init(&example("Example.COM"), None);
    assert_eq!(read(&run).server_name, "example.com");
    assert!(run.output.contains("The server name is example.com, in lower case."), "{}", run.output);
    assert!(!init(&example("example.com"), None).output.contains("lower case"));
}

#[test]
fn a_file_that_exists_stays_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("sabha.toml"), "mine").expect("writable");
    let run = run_in(dir, &example("example.com"), None);
    assert!(matches!(run.result, Err(InitError::Exists(_))), "{:?}", run.result);
    assert_eq!(std::fs::read_to_string(&run.path).expect("still there"), "mine");
}

#[test]
fn a_refusal_says_what_to_write_and_leaves_no_file() {
    let check = |args: InitArgs, typed: Option<&str>, expected: &str| {
        let run = init(&args, typed);
        let error = run.result.as_ref().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!run.path.exists(), "{expected}");
    };
    check(InitArgs::default(), None, "add --server-name NAME");
    check(InitArgs { yes: true, ..InitArgs::default() }, Some("example.com\n"), "add --server-name NAME");
    check(InitArgs::default(), Some(""), "add --server-name NAME");
    check(example("https://example.com"), None, "without https://");
    check(example("example.com."), None, "ends with a dot, and user IDs are written without it; write `example.com`");
    check(example("example.com.:8448"), None, "write `example.com`");
    check(
        InitArgs { database: Some("mysql://u:hunter2@h/d".into()), ..example("example.com") },
        None,
        "that is not a database URL",
    );
    // The input ends here, so no one corrects it.
    check(InitArgs::default(), Some("example.com\n\neveryone\n"), "\"closed\", \"token\" or \"open\"");
    check(InitArgs { data_dir: Some(PathBuf::new()), ..example("example.com") }, None, "data_dir is empty");
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let run = init(&example("example.com"), None);
    assert!(run.result.is_ok());
    let mode = std::fs::metadata(&run.path).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
