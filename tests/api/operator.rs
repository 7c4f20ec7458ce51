//! The command line beside a running server, through its control socket, and on the database itself when none runs.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::harness::{Engine, TestServer};

/// `sabha` with a test server's configuration.
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

    /// Runs a command; what it printed, or what it complained of.
    async fn run(&self, line: &str, input: &'static str) -> Result<String, String> {
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
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    async fn json(&self, line: &str) -> Value {
        let text = self.run(line, "").await.unwrap_or_else(|error| panic!("{line}: {error}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error} in {text}"))
    }
}

async fn manages_accounts_and_tokens(sabha: &Sabha) {
    let made = sabha.json("user create alice --admin --json").await;
    assert_eq!((made["user_id"].as_str(), made["admin"].as_bool()), (Some("@alice:sabha.test"), Some(true)));
    assert!(made["password"].as_str().is_some_and(|password| password.len() == 20), "{made}");
    let said = sabha.run("user create bob --password-stdin", "correct horse battery\n").await.expect("made");
    assert_eq!(said, "Created @bob:sabha.test\n");
    let taken = sabha.run("user create bob", "").await.expect_err("taken");
    assert!(taken.starts_with("sabha: the account was not made: the user name is taken"), "{taken}");
    assert!(sabha.run("user reset-password bob", "").await.expect("reset").contains("password: "));
    assert!(sabha.run("user reset-password carol", "").await.expect_err("unknown").contains("no active account"));
    sabha.run("user deactivate bob", "").await.expect("deactivated");
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

both_engines! {
    async fn commands_reach_a_running_server(mut server: TestServer) {
        manages_accounts_and_tokens(&Sabha::of(&mut server)).await;
        let users = server.app().accounts.list_users(None, 10).await.expect("read");
        assert_eq!(users.len(), 2);
    }

    async fn commands_open_the_database_when_no_server_runs(engine: Engine) {
        let mut server = TestServer::builder().engine(engine).start().await;
        let sabha = Sabha::of(&mut server);
        server.stop().await;
        manages_accounts_and_tokens(&sabha).await;
        server.restart().await;
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
    assert_eq!(sabha.run(&line, "").await, Ok(format!("{address} is healthy.\n")));
    server.stop().await;
    let sick = sabha.run(&line, "").await.expect_err("nobody is there");
    assert!(sick.starts_with(&format!("sabha: {address} is not healthy")), "{sick}");
}
