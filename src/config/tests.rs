//! The configuration as an operator sees it: what is read, which value wins, and the messages about mistakes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

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
fn an_unknown_key_is_refused_with_what_was_meant() {
    let check = |text: &'static str, expected: &str| assert_eq!(problems(&file(text)), [expected], "{text}");
    check("sever_name = 'example.com'", "0.toml: sever_name is not a known key; did you mean `server_name`?");
    check("[databse]\nurl = 'sqlite:x'", "0.toml: databse is not a known key; did you mean `database`?");
    check("[database]\nurll = 'sqlite:x'", "0.toml: database.urll is not a known key; did you mean `url`?");
    check("[rate_limits.sned]\nburst = 1", "0.toml: rate_limits.sned is not a known key; did you mean `send`?");
    check(
        "[[listeners]]\nadress = '127.0.0.1:1'",
        "0.toml: listeners[0].adress is not a known key; did you mean `address`?",
    );
    check("durability = 'power'", "0.toml: durability is not a known key; did you mean `database.durability`?");
    check(
        "[registration]\nxyz = 1",
        "0.toml: registration.xyz is not a known key; here you can write mode, \
         shared_secret, shared_secret_file",
    );
}

#[test]
fn a_bad_value_is_refused_with_what_to_write() {
    let check = |text: &'static str, expected: &str| assert_eq!(problems(&file(text)), [expected], "{text}");
    check(
        "server_name = 'https://example.com'",
        "0.toml: server_name is wrong: `\"https://example.com\"` is not a server name; \
         write a host name without https://, such as \"example.com\"",
    );
    check(
        "[database]\nreaders = 'four'",
        "0.toml: database.readers is wrong: `\"four\"` is not a whole number; write a whole number such as 4",
    );
    check("[database]\nreaders = 0", "0.toml: database.readers is out of bounds: `0`; write a value from 1 to 64");
    check(
        "[database]\nurl = 'mysql://u:hunter2@h/d'",
        "0.toml: database.url is wrong: what is written is not a database URL; \
         write \"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/NAME\"",
    );
    check(
        "[limits]\nrequest_bytes = '1 KiB'",
        "0.toml: limits.request_bytes is out of bounds: `\"1 KiB\"`; write a value from 128 KiB to 64 MiB",
    );
    check(
        "[limits]\nsync_timeout_max = 30",
        "0.toml: limits.sync_timeout_max is wrong: `30` is not a length of time; \
         write a number with its unit, such as \"30s\", \"5m\", \"1h\" or \"7d\"",
    );
    check(
        "[rate_limits.send]\nper_second = nan",
        "0.toml: rate_limits.send.per_second is out of bounds: `nan`; write a value from 0.001 to 1000000",
    );
    check(
        "database = 'postgres://u:hunter2@h/d'",
        "0.toml: database is a section; write [database] and its keys below it",
    );
    check(
        "[listeners]\naddress = '127.0.0.1:1'",
        "0.toml: listeners is a list of sections; write [[listeners]] and its keys below it",
    );
    check(
        "[[listeners]]\naddress = 'localhost'",
        "0.toml: listeners[0].address is wrong: `\"localhost\"` is not an address with a port; \
         write an IP address and a port, such as \"127.0.0.1:8008\" or \"[::1]:8008\"",
    );
    check(
        "[[listeners]]\naddress = '127.0.0.1:1'\nresources = ['admin']",
        "0.toml: listeners[0].resources is wrong: `[\"admin\"]` is not a list in which each is a resource; \
         write a list in [ ] of \"client\", \"federation\" or \"well_known\"",
    );
    check("[[listeners]]\nmode = '660'", "0.toml: listeners[0] listens nowhere; write `address` or `unix`");
    check(
        "[[listeners]]\naddress = '127.0.0.1:1'\nunix = 'x.sock'",
        "0.toml: listeners[0] has both `address` and `unix`; write two [[listeners]]",
    );
    check(
        "[[listeners]]\naddress = '127.0.0.1:1'\n[[listeners]]\naddress = '127.0.0.1:1'",
        "0.toml: listeners[1] is at the same place as an earlier one; remove one of them",
    );
    check(
        "[[listeners]]\naddress = '127.0.0.1:1'\ntls = { key = '/dev/null' }",
        "0.toml: listeners[0].tls.certificate is missing; write the path of a PEM file",
    );
    check("listeners = []", "0.toml: listeners is empty; write at least one [[listeners]], or none for 127.0.0.1:8008");
    check("[metrics]\naddress = '127.0.0.1:8008'", "0.toml: metrics.address is also a listener's; write another port");
    check(
        "[rooms]\ndefault_version = '5'",
        "0.toml: rooms.default_version is not supported: `5`; write a version from \"6\" to \"12\"",
    );
    check(
        "[federation]\nca_files = ['/nowhere/ca.pem']",
        "0.toml: federation.ca_files[0] is wrong: the file /nowhere/ca.pem cannot be read: No such file or directory \
         (os error 2); write the path of a PEM file with certificates of authorities",
    );
    check(
        "[federation]\nca_files = ['/dev/null']",
        "0.toml: federation.ca_files[0] is wrong: the file /dev/null holds no certificate in PEM form; \
         write the path of a PEM file with certificates of authorities",
    );
    check(
        "[outbound]\nhosts = { 'https://x' = '203.0.113.7' }",
        "0.toml: outbound.hosts is wrong: `{ \"https://x\" = \"203.0.113.7\" }` is not a map of host names to IP addresses; \
         write { \"name\" = \"address\" }, such as { \"matrix.example.com\" = \"203.0.113.7\" }",
    );
    check(
        "[appservices]\nfiles = ['/dev/null']",
        "0.toml: appservices.files names a file that cannot be used: /dev/null: it is not a registration: \
         unexpected end of input at line 1, column 1; correct it, or take it from the list",
    );
    check(
        "[registration]\nshared_secret = ''",
        "0.toml: registration.shared_secret is wrong: what is written is not a secret; write a secret text in quotes",
    );
    check(
        "[registration]\nshared_secret = 'hunter2'\nshared_secret_file = '/etc/hostname'",
        "0.toml: registration.shared_secret_file is set, and `shared_secret` too; remove one of them",
    );
    check(
        "[registration]\nshared_secret_file = '/dev/null'",
        "0.toml: registration.shared_secret_file cannot be used: /dev/null: it is empty; \
         write the path of a file that holds the secret",
    );
    check(
        "[client]\nbase_url = 'matrix.example.com'",
        "0.toml: client.base_url is not a web address: `matrix.example.com`; \
         write the address that clients use, such as \"https://matrix.example.com\"",
    );
    check(
        "[federation]\nwell_known_server = 'https://x'",
        "0.toml: federation.well_known_server is not HOST:PORT: `https://x`; write a host with a port, such as \"matrix.example.com:443\"",
    );
}

#[test]
fn every_mistake_is_found_at_once() {
    let given = Given {
        files: vec!["sever_name = 'x'\n[log]\nformat = 'xml'", "[presence]\nenabled = 1"],
        environment: vec![("SABHA_REGISTRATION__MODE", "free")],
        overrides: vec!["log.filtr=info", "no-equals-sign hunter2"],
    };
    assert_eq!(
        problems(&given),
        [
            "0.toml: log.format is wrong: `\"xml\"` is not a log format; write \"text\" or \"json\"",
            "0.toml: sever_name is not a known key; did you mean `server_name`?",
            "1.toml: presence.enabled is wrong: `1` is not true or false; write true or false",
            "SABHA_REGISTRATION__MODE: registration.mode is wrong: `\"free\"` is not a registration mode; \
             write \"closed\", \"token\" or \"open\"",
            "-O: log.filtr is not a known key; did you mean `log.filter`?",
            "-O: an override has no `=`; write -O KEY=VALUE, such as -O server_name=example.com",
        ]
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_without_repeating_it() {
    let problems = problems(&file("server_name = 'x'\n[database]\nurl = postgres://u:hunter2@h/d\n"));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("0.toml: line 3 is not TOML: "), "{problems:?}");
    assert!(!problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn a_named_file_must_exist() {
    let sources = Sources { files: vec![PathBuf::from("/does/not/exist.toml")], ..Sources::default() };
    let problem = load(&sources).expect_err("there is no such file").to_string();
    assert!(problem.starts_with("/does/not/exist.toml: cannot be read: "), "{problem}");
}

#[test]
fn the_later_source_wins_key_by_key() {
    let given = Given {
        files: vec![
            "server_name = 'one.example'\ndata_dir = '/one'\n[rate_limits.send]\nburst = 1\n[log]\nfilter = 'debug'",
            "data_dir = '/two'\n[log]\nformat = 'json'",
        ],
        environment: vec![("SABHA_DATA_DIR", "/three"), ("SABHA_LOG__FILTER", "warn"), ("PATH", "/bin")],
        overrides: vec!["log.filter=error"],
    };
    let loaded = load_given(&given).expect("good");
    let config = &loaded.config;
    assert_eq!(config.server_name, "one.example");
    assert_eq!(config.data_dir, PathBuf::from("/three"));
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Json, "error"));
    assert_eq!(config.rate_limits.send, Rate { burst: 1, ..RateLimits::default().send });
    let origin = |key: &str| loaded.origins.get(key).map_or("default", Origin::kind);
    assert_eq!(origin("server_name"), "file");
    assert_eq!(origin("data_dir"), "environment");
    assert_eq!(origin("log.filter"), "flag");
    assert_eq!(origin("rate_limits.send.per_second"), "default");
}

#[test]
fn listeners_of_a_file_replace_the_built_in_one() {
    let config = good(&file("[[listeners]]\nunix = '/run/sabha.sock'\nmode = '600'\nresources = ['client']"));
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].mode.bits(), 0o600);
    assert_eq!(
        config.listeners[0].place(),
        Some(ListenerPlace::Unix { path: "/run/sabha.sock".into(), mode: config.listeners[0].mode })
    );
    assert!(config.listeners[0].serves(Resource::Client) && !config.listeners[0].serves(Resource::Federation));
    assert!(config.listeners[0].trusts(None) && !config.listeners[0].trusts(Some([127, 0, 0, 1].into())));
}

#[test]
fn an_override_needs_no_quotes() {
    let with = |text: &'static str| good(&Given { overrides: vec![text], ..Given::default() });
    assert_eq!(with("server_name=example.com").server_name, "example.com");
    assert_eq!(with("server_name=\"example.com\"").server_name, "example.com");
    assert_eq!(with("server_name = example.com").server_name, "example.com");
    assert!(!with("rate_limits.enabled=false").rate_limits.enabled);
    assert_eq!(with("database.readers=2").database.readers, 2);
    assert_eq!(with("rate_limits.send.per_second=2").rate_limits.send.per_second.to_string(), "2");
    assert_eq!(with("rooms.default_version=11").rooms.default_version, ruma::RoomVersionId::V11);
    assert_eq!(with("data_dir=2024").data_dir, PathBuf::from("2024"));
    assert_eq!(with("limits.request_bytes=2 MiB").limits.request_bytes.bytes(), 2 << 20);
    assert_eq!(with("limits.request_bytes=131072").limits.request_bytes.bytes(), 131_072);
    assert_eq!(with("sessions.access_token_lifetime=7d").sessions.access_token_lifetime, Some(TimeSpan::days(7)));
    assert_eq!(with("limits.sync_timeout_max=60s").limits.sync_timeout_max.duration(), Duration::from_secs(60));
    let listeners = with("listeners=[{ address = \"127.0.0.1:0\" }]").listeners;
    assert_eq!(listeners, [Listener::tcp("127.0.0.1:0".parse().expect("an address"))]);
}

#[test]
fn a_foreign_variable_warns_and_a_mistyped_one_stops() {
    let with = |name| Given { environment: vec![(name, "1")], ..Given::default() };
    let warnings = |name| load_given(&with(name)).expect("starts").warnings;
    assert_eq!(warnings("SABHA_SERVICE_HOST"), [""; 0]);
    assert_eq!(warnings("SABHA_PORT_8008_TCP"), [""; 0]);
    assert_eq!(
        warnings("SABHA_FLAVOUR"),
        ["the environment variable SABHA_FLAVOUR is not a known key and has no effect"]
    );
    assert_eq!(
        problems(&with("SABHA_SEVER_NAME")),
        ["SABHA_SEVER_NAME: sever_name is not a known key; did you mean `server_name`?"]
    );
    assert_eq!(
        problems(&with("SABHA_DATABASE_URL")),
        ["SABHA_DATABASE_URL: database_url is not a known key; did you mean `database.url`?"]
    );
}

#[test]
fn the_named_variable_then_the_searched_files_are_read() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [named, found] = ["named", "found"].map(|name| {
        let path = dir.path().join(format!("{name}.toml"));
        std::fs::write(&path, format!("server_name = '{name}.example'")).expect("writable");
        path
    });
    let searched = vec![dir.path().join("missing.toml"), found.clone()];
    let mut sources = Sources { searched, ..Sources::default() };
    assert_eq!(load(&sources).expect("good").files, [found]);
    sources.environment = vec![("SABHA_CONFIG".into(), named.clone().into())];
    assert_eq!(load(&sources).expect("good").files, std::slice::from_ref(&named));
    sources.files = vec![named.clone()];
    sources.environment.clear();
    assert_eq!(load(&sources).expect("good").config.server_name, "named.example");
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
