//! Mistakes in a configuration, each with the message that says what to write.

use super::*;

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
