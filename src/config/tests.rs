//! The configuration as an operator sees it: built-in values, secrets in listings, and warnings. [`sources`] tests which
//! value wins, [`refused`] the messages about mistakes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

mod refused;
mod sources;

/// Sources that read nothing from this machine.
#[derive(Default)]
struct Given {
    files: Vec<&'static str>,
    environment: Vec<(&'static str, &'static str)>,
    overrides: Vec<&'static str>,
}

fn load_given(given: &Given) -> Result<Loaded, Problems> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files: Vec<PathBuf> = (0..given.files.len()).map(|n| dir.path().join(format!("{n}.toml"))).collect();
    for (path, text) in files.iter().zip(&given.files) {
        std::fs::write(path, text).expect("writable");
    }
    load(&Sources {
        files,
        environment: given
            .environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect(),
        overrides: given.overrides.iter().map(|text| (*text).to_owned()).collect(),
        ..Sources::default()
    })
}

fn file(text: &'static str) -> Given {
    Given { files: vec![text], ..Given::default() }
}

fn good(given: &Given) -> Config {
    load_given(given).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// The problems, without the path of the test's directory.
fn problems(given: &Given) -> Vec<String> {
    let problems = load_given(given).expect_err("this should be refused").0;
    problems
        .into_iter()
        .map(|problem| match &problem.origin {
            Origin::File(path) => {
                let name = PathBuf::from(path.file_name().expect("a file in the test"));
                problem.clone().from_origin(Origin::File(name)).to_string()
            }
            _ => problem.to_string(),
        })
        .collect()
}

#[test]
fn no_configuration_is_local_mode() {
    let config = good(&Given::default());
    assert_eq!(config, Config::default());
    assert!(config.is_local());
    assert_eq!(config.server_name, "localhost");
    assert_eq!(config.database_url().target(), DatabaseTarget::Sqlite("./sabha-data/sabha.db".into()));
    assert_eq!(config.listeners, [Listener::tcp("127.0.0.1:8008".parse().expect("an address"))]);
    assert_eq!(config.metrics_address(), Some("127.0.0.1:8009".parse().expect("an address")));
    assert_eq!(config.registration.mode, RegistrationMode::Closed);
    assert_eq!(config.database.durability, Durability::Power);
    assert!(!config.federation.enabled && config.rate_limits.enabled && config.presence.enabled);
    assert_eq!(config.rooms.default_version, ruma::RoomVersionId::V12);
    assert_eq!(config.client_base_url(None), "http://localhost:8008");
    assert_eq!(config.well_known_server(), None);
}

#[test]
fn the_built_in_values_are_within_their_own_bounds() {
    let values = toml::Table::try_from(Config::default()).expect("TOML");
    assert_eq!(check::check(&values), []);
}

#[test]
fn addresses_for_others_follow_from_the_server_name() {
    let check = |text: &'static str, base_url: &str, server: Option<&str>| {
        let config = good(&file(text));
        assert_eq!(config.client_base_url(None), base_url, "{text}");
        assert_eq!(config.well_known_server().as_deref(), server, "{text}");
    };
    check("server_name = 'example.com'", "https://example.com", None);
    check("server_name = 'example.com:8448'", "https://example.com", None);
    check("server_name = 'e.com'\n[client]\nbase_url = 'https://m.e.com/'", "https://m.e.com", None);
    check(
        "server_name = 'e.com'\n[federation]\nwell_known_server = 'm.e.com:443'",
        "https://e.com",
        Some("m.e.com:443"),
    );
    check("[[listeners]]\naddress = '127.0.0.1:9000'", "http://localhost:9000", None);
    let bound = "127.0.0.1:40123".parse().expect("an address");
    assert_eq!(Config::default().client_base_url(Some(bound)), "http://localhost:40123");
}

#[test]
fn a_password_is_in_no_listing_and_no_debug_output() {
    let given = Given { overrides: vec!["database.url=postgres://sabha:hunter2@db/sabha"], ..Given::default() };
    let loaded = load_given(&given).expect("good");
    let shown = format!("{loaded:?}{}", show::render(&loaded.entries()));
    assert!(!shown.contains("hunter2") && shown.contains("sabha:***@db"), "{shown}");
    assert_eq!(loaded.config.database_url().expose(), "postgres://sabha:hunter2@db/sabha");
}

#[test]
fn the_shared_secret_is_in_no_listing_and_may_be_in_a_file() {
    let given = Given { overrides: vec!["registration.shared_secret=hunter2"], ..Given::default() };
    let loaded = load_given(&given).expect("good");
    let shown = format!("{loaded:?}{}{:?}", show::render(&loaded.entries()), loaded.warnings);
    assert!(!shown.contains("hunter2") && shown.contains("shared_secret = \"***\""), "{shown}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("secret");
    std::fs::write(&path, "hunter2\n").expect("writable");
    let mut config = Config::default();
    config.registration.shared_secret_file = Some(path);
    let secret = config.shared_secret().expect("readable").expect("there");
    assert_eq!(secret.expose(), "hunter2");
}

#[test]
fn what_is_allowed_but_risky_is_warned_of() {
    let check = |text: &'static str, expected: &str| {
        let warnings = load_given(&file(text)).expect("allowed").warnings;
        assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{warnings:?}");
    };
    check("[registration]\nmode = 'open'", "registration.mode is \"open\"");
    check("[rate_limits]\nenabled = false", "rate_limits.enabled is false");
    check("[registration]\nshared_secret = 'short'", "registration.shared_secret is shorter");
    check("[metrics]\naddress = '0.0.0.0:8009'", "metrics.address is 0.0.0.0:8009");
}
