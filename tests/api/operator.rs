//! The command line: beside a running server, through its control socket, and directly on the database when none runs.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sabha::config::RegistrationMode;
use serde_json::{Value, json};

use crate::harness::{Engine, TestServer, postgres::PostgresDatabase, v3};

/// `sabha` with the configuration of a test server.
#[derive(Clone)]
struct Sabha {
    settings: Vec<String>,
    dir: PathBuf,
}

impl Sabha {
    fn of(server: &mut TestServer) -> Self {
        let dir = server.data_dir().to_owned();
        let config = server.config_mut();
        let settings = vec![
            format!("server_name={}", config.server_name),
            format!("data_dir={}", dir.display()),
            format!("database.url={}", config.database_url().expose()),
        ];
        Self { settings, dir }
    }

    /// `sabha` in a directory, without a configuration.
    fn in_directory(dir: &Path) -> Self {
        Self { settings: Vec::new(), dir: dir.to_owned() }
    }

    fn with(mut self, setting: String) -> Self {
        self.settings.push(setting);
        self
    }

    /// Runs a command and returns its output, or its error text.
    async fn run(&self, line: &str, input: &'static str) -> Result<String, String> {
        let said = self.said(line, input).await;
        if said.success { Ok(said.output) } else { Err(said.errors) }
    }

    /// Runs a command that must fail, and returns its single line.
    async fn refusal(&self, line: &str) -> String {
        let refused = self.run(line, "").await.expect_err(line);
        assert!(refused.starts_with("sabha: ") && refused.lines().count() == 1, "{line}: {refused}");
        refused
    }

    async fn said(&self, line: &str, input: &'static str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sabha"));
        command.args(line.split(' ')).current_dir(&self.dir).env_clear();
        for setting in &self.settings {
            command.args(["-O", setting]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let run = move || {
            let mut child = command.spawn().expect("it was built");
            let mut stdin = child.stdin.take().expect("it is piped");
            // A command that reads no input may have ended already.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            child.wait_with_output().expect("it ends")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("it does not panic");
        let text = |bytes| String::from_utf8(bytes).expect("we write UTF-8");
        Said { success: output.status.success(), output: text(output.stdout), errors: text(output.stderr) }
    }

    async fn json(&self, line: &str) -> Value {
        let text = self.run(line, "").await.unwrap_or_else(|error| panic!("{line}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error} in {text}"))
    }
}

/// Output of a command.
struct Said {
    success: bool,
    output: String,
    errors: String,
}

async fn manages_accounts_and_tokens(sabha: &Sabha) {
    let made = sabha.json("user create alice --admin --json").await;
    assert_eq!((made["user_id"].as_str(), made["admin"].as_bool()), (Some("@alice:sabha.test"), Some(true)));
    assert!(made["password"].as_str().is_some_and(|password| password.len() == 20), "{made}");
    let said = sabha.run("user create bob --password-stdin", "correct horse battery\n").await.expect("made");
    assert_eq!(said, "Created @bob:sabha.test\n");
    let elsewhere = sabha.run("user create @bob:other.test", "").await.expect_err("not here");
    assert!(elsewhere.contains("is not a name of this server"), "{elsewhere}");
    let taken = sabha.run("user create @bob:sabha.test", "").await.expect_err("taken");
    assert!(taken.starts_with("sabha: the account was not made: the user name is taken"), "{taken}");
    assert!(sabha.run("user reset-password bob", "").await.expect("reset").contains("password: "));
    assert!(sabha.run("user reset-password carol", "").await.expect_err("unknown").contains("no active account"));
    assert_eq!(sabha.run("user promote bob", "").await, Ok("@bob:sabha.test is an admin now.\n".to_owned()));
    assert_eq!(sabha.json("user list --json").await[1]["admin"], true);
    let demoted = sabha.json("user demote @bob:sabha.test --json").await;
    assert_eq!(demoted, json!({ "user_id": "@bob:sabha.test", "admin": false }));
    assert_eq!(sabha.json("user list --json").await[1]["admin"], false);
    assert!(sabha.run("user promote carol", "").await.expect_err("unknown").contains("no active account"));
    sabha.run("user deactivate bob", "").await.expect("deactivated");
    assert!(sabha.run("user promote bob", "").await.expect_err("gone").contains("no active account"));
    let users = sabha.json("user list --json").await;
    assert_eq!((&users[0]["user_id"], &users[0]["deactivated_at"]), (&"@alice:sabha.test".into(), &Value::Null));
    assert!(users[1]["user_id"] == "@bob:sabha.test" && users[1]["deactivated_at"].is_i64(), "{users}");

    let token = sabha.json("token new --uses 5 --expires 7d --json").await;
    let name = token["token"].as_str().expect("text").to_owned();
    let tokens = sabha.json("token list --json").await;
    assert_eq!((&tokens[0]["token"], &tokens[0]["uses_allowed"]), (&token["token"], &5.into()));
    assert!(sabha.run("token list", "").await.expect("listed").contains("5 of 5 left"));
    sabha.run(&format!("token revoke {name}"), "").await.expect("revoked");
    assert_eq!(sabha.run("token list", "").await.expect("listed"), "There is no token.\n");
    assert!(sabha.run(&format!("token revoke {name}"), "").await.expect_err("gone").contains("there is no token"));
}

async fn manages_signing_keys(sabha: &Sabha) {
    let first = sabha.json("federation keys list --json").await[0].clone();
    assert!(first["expired_at"].is_null(), "{first}");
    let said = sabha.run("federation keys rotate", "").await.expect("a new key");
    assert!(
        said.starts_with("This server signs with ed25519:a_") && said.contains("signing.key: without it"),
        "{said}"
    );
    let keys = sabha.json("federation keys list --json").await;
    assert_eq!(keys.as_array().map(Vec::len), Some(2));
    let was = keys.as_array().expect("a list").iter().find(|key| key["key_id"] == first["key_id"]);
    assert!(was.is_some_and(|was| was["expired_at"].is_i64()), "{keys}");

    let pem = "-----BEGIN MATRIX PRIVATE KEY-----\nKey-ID: ed25519:c8NsuQ\n\n\
        7KRZiZ2sTyRR8uqqUjRwczuwRXXkUMYIUHq4Mc3t4bE=\n-----END MATRIX PRIVATE KEY-----\n";
    let file = sabha.dir.join("matrix_key.pem");
    fs::write(&file, pem).expect("writable");
    let import = format!("federation keys import {}", file.display());
    assert_eq!(sabha.json(&format!("{import} --json")).await["key_id"], "ed25519:c8NsuQ");
    let again = sabha.run(&import, "").await;
    assert_eq!(again, Ok("This server signs with ed25519:c8NsuQ already.\n".to_owned()));
    let listed = sabha.run("federation keys list", "").await.expect("listed");
    assert!(listed.lines().any(|line| line.starts_with("ed25519:c8NsuQ ") && line.ends_with("in use")), "{listed}");

    fs::write(&file, "ed25519 a_1 c2hvcnQ").expect("writable");
    let refused = sabha.refusal(&import).await;
    assert!(refused.contains("cannot be imported: the key's seed is not 32 bytes") && !refused.contains("c2hvcnQ"));
    fs::remove_file(&file).expect("it is there");
    assert!(sabha.refusal(&import).await.contains("No such file"));
}

both_engines! {
    async fn commands_reach_a_running_server(mut server: TestServer) {
        manages_accounts_and_tokens(&Sabha::of(&mut server)).await;
        manages_signing_keys(&Sabha::of(&mut server)).await;
        assert_eq!(server.app().signer.key_id().as_str(), "ed25519:c8NsuQ");
        let users = server.app().accounts.list_users(None, 10).await.expect("read");
        assert_eq!(users.len(), 2);
    }

    async fn commands_open_the_database_when_no_server_runs(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        let sabha = Sabha::of(&mut server);
        server.stop().await;
        manages_accounts_and_tokens(&sabha).await;
        manages_signing_keys(&sabha).await;
        server.restart().await;
        assert_eq!(server.app().signer.key_id().as_str(), "ed25519:c8NsuQ");
        let users = server.app().accounts.list_users(None, 10).await.expect("read");
        assert_eq!(users.len(), 2);
    }
}

#[tokio::test]
async fn the_control_socket_is_the_owners_and_goes_with_the_server() {
    let mut server = TestServer::start().await;
    let socket = server.data_dir().join("control.sock");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn healthcheck_asks_the_running_server() {
    let mut server = TestServer::start().await;
    let sabha = Sabha::of(&mut server);
    let address = server.base().trim_start_matches("http://").to_owned();
    let line = format!("healthcheck --address {address}");
    assert_eq!(sabha.run(&line, "").await, Ok(format!("{address} is healthy (sabha.test).\n")));
    // Without an address the command means this server, wherever it listens.
    let here = format!("listeners=[{{address=\"{address}\"}}]");
    let at_its_place = |sabha: &Sabha| sabha.clone().with(here.clone());
    assert_eq!(at_its_place(&sabha).run("healthcheck", "").await, Ok(format!("{address} is healthy (sabha.test).\n")));
    // It is still the same server after it has changed its key.
    sabha.run("federation keys rotate", "").await.expect("a new key");
    assert_eq!(at_its_place(&sabha).run("healthcheck", "").await, Ok(format!("{address} is healthy (sabha.test).\n")));
    let mut other = TestServer::start().await;
    let said = at_its_place(&Sabha::of(&mut other)).refusal("healthcheck").await;
    assert!(said.contains("another server of sabha.test listens there"), "{said}");
    let empty = tempfile::tempdir().expect("a temporary directory");
    let said = at_its_place(&Sabha::in_directory(empty.path())).refusal("healthcheck").await;
    assert!(said.contains("there is no server in"), "{said}");

    server.stop().await;
    let sick = sabha.refusal(&line).await;
    assert!(sick.starts_with(&format!("sabha: {address} is not healthy")), "{sick}");
}

/// Lists the entries of a directory.
fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).expect("it is readable").map(|entry| entry.expect("it is readable").path()).collect()
}

#[tokio::test]
async fn a_command_in_the_wrong_directory_makes_no_server() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let sabha = Sabha::in_directory(empty.path());
    for line in [
        "user create alice --admin",
        "user list",
        "user promote alice",
        "user reset-password alice",
        "user deactivate alice",
        "token new",
        "token list",
        "token revoke x",
        "federation keys list",
        "federation keys rotate",
        "healthcheck",
    ] {
        let said = sabha.refusal(line).await;
        assert!(said.contains("there is no server in") && said.contains("name its configuration with -c"), "{said}");
        assert_eq!(entries(empty.path()), Vec::<PathBuf>::new(), "{line}");
    }
}

#[tokio::test]
async fn an_empty_file_is_no_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data_dir = dir.path().join("sabha-data");
    fs::create_dir(&data_dir).expect("writable");
    let file = data_dir.join("sabha.db");
    fs::write(&file, "").expect("writable");
    for line in ["user list", "user create alice", "token new"] {
        let said = Sabha::in_directory(dir.path()).refusal(line).await;
        assert!(said.contains("there is no server in"), "{said}");
        assert_eq!(entries(&data_dir), [file.as_path()], "{line}");
        assert_eq!(fs::metadata(&file).expect("it is still there").len(), 0, "{line}");
    }
}

#[tokio::test]
async fn init_refuses_keys_that_it_would_not_write() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let sabha = Sabha::in_directory(dir.path()).with("log.filter=debug".to_owned());
    let said = sabha.refusal("init --yes --server-name example.com").await;
    assert!(said.contains("-O sets a key for one run") && said.contains("set `log.filter` in the file"), "{said}");
    assert_eq!(entries(dir.path()), Vec::<PathBuf>::new());
}

/// Returns the URL of a database without a server, and the value that keeps it alive.
async fn unused_database(engine: Engine, dir: &Path) -> (String, Option<PostgresDatabase>) {
    match engine {
        Engine::Sqlite => (format!("sqlite:{}", dir.join("other.db").display()), None),
        Engine::Postgres => {
            let database = PostgresDatabase::create().await.expect("it is installed");
            (database.url.clone(), Some(database))
        }
    }
}

both_engines! {
    async fn a_command_on_a_database_without_a_server_makes_none(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        let sabha = Sabha::of(&mut server);
        server.stop().await;
        let (url, _kept) = unused_database(engine, &sabha.dir).await;
        let mistaken = sabha.clone().with(format!("database.url={url}"));
        // Runs twice, because the first run must not create a server.
        for _ in 0..2 {
            let said = mistaken.refusal("user create alice").await;
            assert!(said.contains("there is no server in"), "{said}");
        }
        sabha.run("user list", "").await.expect("the server's own database is there");
        // A server without its key counts as one that has lost it, not as a new one.
        fs::remove_file(sabha.dir.join("signing.key")).expect("it is ours");
        let said = sabha.refusal("user create alice").await;
        assert!(said.contains("signing.key is missing") && said.contains("look whether data_dir is right"), "{said}");
        assert!(!sabha.dir.join("signing.key").exists());
    }

    async fn a_start_that_finds_its_port_taken_makes_nothing(engine: Engine) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (url, _kept) = unused_database(engine, dir.path()).await;
        let sabha = Sabha::in_directory(dir.path()).with(format!("database.url={url}"));
        let somebody = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let taken: SocketAddr = somebody.local_addr().expect("it is bound");
        let free = "127.0.0.1:0";
        let said = sabha.clone().with(format!("metrics.address={taken}")).refusal(&format!("serve --listen {free}")).await;
        assert!(said.contains("set metrics.address to another place"), "{said}");
        let said = sabha.clone().with(format!("metrics.address={free}")).refusal(&format!("serve --listen {taken}")).await;
        assert!(said.contains("sabha serve --listen"), "{said}");
        assert_eq!(entries(dir.path()), Vec::<PathBuf>::new());
        let said = sabha.refusal("user list").await;
        assert!(said.contains("there is no server in"), "{said}");
    }

    async fn rights_are_there_at_once_and_nobody_is_signed_out(mut server: TestServer) {
        let sabha = Sabha::of(&mut server);
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = bob.create_room(json!({ "preset": "public_chat" })).await;
        let alias = v3(["directory", "room", "#bobs:sabha.test"]);
        let name = async || bob.put(&alias, json!({ "room_id": room })).await.ok();
        name().await;
        alice.delete(&alias, json!({})).await.error(403, "M_FORBIDDEN");
        sabha.run("user promote alice", "").await.expect("promoted");
        alice.delete(&alias, json!({})).await.ok();
        name().await;
        sabha.run("user demote alice", "").await.expect("demoted");
        alice.delete(&alias, json!({})).await.error(403, "M_FORBIDDEN");
        // A session of a user whose rights have changed ends with its logout like any other.
        alice.post(&v3(["logout"]), json!({})).await.ok();
        alice.get(&v3(["account", "whoami"])).await.error(401, "M_UNKNOWN_TOKEN");
    }
}

#[tokio::test]
async fn a_token_that_nobody_can_use_is_said_to_be_useless() {
    let check = async |mode: RegistrationMode, expected: &str| {
        let mut server = TestServer::builder().config(|config| config.registration.mode = mode).start().await;
        let said = Sabha::of(&mut server).said("token new", "").await;
        assert!(said.success && said.output.trim().len() == 24, "the token alone: {}", said.output);
        assert_eq!(said.errors.is_empty(), expected.is_empty(), "{}", said.errors);
        assert!(said.errors.contains(expected), "{}", said.errors);
    };
    check(RegistrationMode::Closed, "nobody can register with this token until").await;
    check(RegistrationMode::Open, "people can register without a token").await;
    check(RegistrationMode::Token, "").await;
}
