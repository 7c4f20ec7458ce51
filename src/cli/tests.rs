//! Command lines: what each verb takes, and the messages about wrong flags.

use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::read(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    <Cli as CommandFactory>::command().debug_assert();
}

#[test]
fn every_verb_and_flag_has_help() {
    fn check(command: &clap::Command) {
        assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {} has no help", command.get_name(), argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }
    check(&<Cli as CommandFactory>::command());
}

#[test]
fn flags_count_before_and_after_the_verb() {
    let check = |line: &str, expected: &[&str]| {
        assert_eq!(parse(line).expect("parses").global.overrides, expected, "{line}");
    };
    check("sabha -O a=1 serve -O b=2", &["a=1", "b=2"]);
    check("sabha -O a=1 -O b=2 serve", &["a=1", "b=2"]);
    check("sabha serve -O b=2", &["b=2"]);
    check("sabha -O a=1 config show -O b=2", &["a=1", "b=2"]);
    check("sabha -O a=1 config -O b=2 show", &["a=1", "b=2"]);
    check("sabha serve", &[]);
}

#[test]
fn no_verb_means_serve() {
    assert!(matches!(parse("sabha").expect("parses").command(), Command::Serve(_)));
}

#[test]
fn verbs_take_their_flags() {
    let check = |line: &str| {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).map_or_else(|e| e.to_string(), |_| String::new()))
    };
    check("sabha serve --listen 127.0.0.1:0 --listen unix:/tmp/sabha.sock");
    check("sabha -c a.toml -c b.toml -O server_name=example.com");
    check("sabha serve -c a.toml -O rate_limits.enabled=false");
    check("sabha init -c sabha.toml --server-name example.com --database sqlite:x.db --registration token --yes");
    check("sabha init --non-interactive --server-name example.com");
    check("sabha config check");
    check("sabha config show --json");
    check("sabha user create alice --admin --password-stdin");
    check("sabha user list --json");
    check("sabha user reset-password alice --password-stdin");
    check("sabha user promote alice");
    check("sabha user demote alice --json");
    check("sabha user deactivate alice");
    check("sabha token new --uses 5 --expires 7d --json");
    check("sabha token list");
    check("sabha token revoke abc");
    check("sabha federation keys list --json");
    check("sabha federation keys rotate");
    check("sabha federation keys import /etc/matrix-synapse/homeserver.signing.key --json");
    check("sabha healthcheck --address 127.0.0.1:8008");
}

#[test]
fn wrong_flags_say_what_to_write() {
    let check = |line: &str, expected: &str| {
        let error = parse(line).expect_err(line).to_string();
        assert!(error.contains(expected), "{line}: {error}");
    };
    check("sabha token new --expires tomorrow", "such as 30s, 5m, 1h or 7d");
    check("sabha token new --expires 0s", "it would be over at once; write a longer time");
    check("sabha token new --uses 0", "0 is not in 1..");
    check("sabha serve --listen 8008", "write ADDRESS:PORT such as 127.0.0.1:8008, or unix:PATH");
    check("sabha init --registration everyone", "\"closed\", \"token\" or \"open\"");
    check("sabha --listen 127.0.0.1:9000", "sabha serve --listen 127.0.0.1:8008");
    check("sabha user create alice --listen 127.0.0.1:9000", "sabha serve --listen 127.0.0.1:8008");
    check("sabha user crate", "a similar subcommand exists: 'create'");
}
