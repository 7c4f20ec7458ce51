//! The sources of a configuration, and which of them wins.

use super::*;

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
