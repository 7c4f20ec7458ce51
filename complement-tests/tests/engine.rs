//! Tests of the engine as Complement uses it: over HTTP, with a short launcher instead of a server.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says enough: it fails at that line")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::{Client, Method, StatusCode};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, pidfd_open, test_kill_process, waitpid};
use serde_json::{Value, json};

/// Prints what it knows, writes its process ID to the pipe, and then waits.
const LAUNCHER: &str = r#"#!/bin/sh
echo started >>"$ROOT/starts"
echo "$SERVER_NAME at $ADDRESS $CLIENT_PORT $FED_PORT"
cat /etc/hosts
echo "$$" >"$PIDS"
exec sleep 1000
"#;

struct Engine {
    process: Child,
    client: Client,
    base: String,
    folder: tempfile::TempDir,
}

impl Engine {
    /// Starts an engine, and reads the line with its address.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let launchers = folder.path().join("launchers");
        fs::create_dir(&launchers).unwrap();
        fs::write(launchers.join("fake.sh"), LAUNCHER).unwrap();
        fs::set_permissions(launchers.join("fake.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        let pids = folder.path().join("pids");
        assert!(Command::new("mkfifo").arg(&pids).status().unwrap().success());
        let mut process =
            engine(folder.path(), "127.0.0.1:0").env("PIDS", &pids).stdout(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, client: Client::new(), base: format!("http://{}/v1.45", address.trim()), folder }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let request = self.client.request(method, format!("{}{path}", self.base)).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn post(&self, path: &str) -> StatusCode {
        self.ask(Method::POST, path, json!({})).await.0
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, json!({})).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn create(&self, name: &str, image: &str, alias: &str, labels: Value) -> (StatusCode, Value) {
        let body = json!({
            "Image": image,
            "Labels": labels,
            "Env": [format!("SERVER_NAME={alias}")],
            "NetworkingConfig": { "EndpointsConfig": { "net": { "Aliases": [alias] } } },
        });
        self.ask(Method::POST, &format!("/containers/create?name={name}"), body).await
    }

    async fn created(&self, name: &str, image: &str, alias: &str, labels: Value) -> String {
        let (status, body) = self.create(name, image, alias, labels).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body["Id"].as_str().unwrap().to_owned()
    }

    async fn start_container(&self, id: &str) -> Pid {
        assert_eq!(self.post(&format!("/containers/{id}/start")).await, StatusCode::NO_CONTENT);
        // The launcher opens the pipe after it has written its log, so this waits for both.
        let pid = fs::read_to_string(self.folder.path().join("pids")).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    async fn status(&self, id: &str) -> String {
        self.get(&format!("/containers/{id}/json")).await["State"]["Status"].as_str().unwrap().to_owned()
    }

    async fn put(&self, id: &str, archive: Vec<u8>) -> StatusCode {
        let url = format!("{}/containers/{id}/archive?path=/", self.base);
        self.client.put(url).body(archive).send().await.unwrap().status()
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Ends the engine, and waits until the janitor, which holds our standard error, has ended too.
    fn end(mut self, signal: Signal) -> tempfile::TempDir {
        let mut stderr = self.process.stderr.take().unwrap();
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        self.process.wait().unwrap();
        let mut said = String::new();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
        self.folder
    }
}

fn engine(folder: &Path, listen: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sabha-complement"));
    command.args(["engine", "--listen", listen]);
    for (option, name) in [("--launchers", "launchers"), ("--logs", "logs"), ("--work", "work")] {
        command.arg(option).arg(folder.join(name));
    }
    command.stderr(Stdio::piped());
    command
}

fn archive(name: &str, content: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    // Complement writes an absolute name, which `set_path` rejects.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(content.len().try_into().unwrap());
    header.set_mode(0o777);
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, content.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

/// Waits until a process that is not our child has ended.
fn wait_for_end(pid: Pid) {
    let Ok(handle) = pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    // The handle of a process becomes readable when the process ends.
    let mut handles = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut handles, None).unwrap();
}

#[tokio::test]
async fn a_container_lives_as_complement_wants_it() {
    let engine = Engine::start();
    let id = engine.created("complement_p_b_hs1", "fake", "hs1", json!({ "a": "1", "b": "2" })).await;
    assert_eq!(engine.status(&id).await, "created");
    assert_eq!(engine.put(&id, archive("/complement/ca/ca.crt", "a CA")).await, StatusCode::OK);
    assert_eq!(engine.put(&id, archive("/etc/passwd", "no")).await, StatusCode::BAD_REQUEST);

    let first = engine.start_container(&id).await;
    let described = engine.get(&format!("/containers/{id}/json")).await;
    assert_eq!(described["State"]["Running"], true);
    let ports = ["8008/tcp", "8448/tcp"].map(|port| described["NetworkSettings"]["Ports"][port][0].clone());
    assert!(ports.iter().all(|port| port["HostIp"] == "127.0.0.1"), "{ports:?}");
    let log = engine.client.get(format!("{}/containers/{id}/logs", engine.base)).send().await.unwrap();
    let log = log.bytes().await.unwrap();
    assert_eq!(log[..4], [1, 0, 0, 0]);
    assert_eq!(u32::from_be_bytes(log[4..8].try_into().unwrap()) as usize, log.len() - 8);
    let log = String::from_utf8_lossy(&log[8..]).into_owned();
    let [client, federation] = ports.map(|port| port["HostPort"].as_str().unwrap().to_owned());
    assert!(log.contains(&format!("hs1 at 127.77.1.1 {client} {federation}\n")), "{log}");

    assert_eq!(engine.post(&format!("/containers/{id}/pause")).await, StatusCode::NO_CONTENT);
    assert_eq!(engine.status(&id).await, "paused");
    assert_eq!(engine.post(&format!("/containers/{id}/unpause")).await, StatusCode::NO_CONTENT);
    assert_eq!(engine.status(&id).await, "running");
    // A stop also ends a paused server.
    assert_eq!(engine.post(&format!("/containers/{id}/pause")).await, StatusCode::NO_CONTENT);
    assert_eq!(engine.post(&format!("/containers/{id}/stop?t=30")).await, StatusCode::NO_CONTENT);
    assert_eq!(engine.status(&id).await, "exited");
    assert!(test_kill_process(first).is_err(), "it has ended");

    let query = "repo=localhost/complement&tag=x&changes=LABEL+%22b%22%3D%223%22&changes=LABEL+%22c%22%3D%224%22";
    let (status, image) = engine.ask(Method::POST, &format!("/commit?container={id}&{query}"), json!({})).await;
    assert_eq!(status, StatusCode::CREATED);
    let image = image["Id"].as_str().unwrap();
    let images = engine.get(r#"/images/json?filters={"label":{"b=3":true}}"#).await;
    assert_eq!(images[0]["Labels"], json!({ "a": "1", "b": "3", "c": "4" }));
    assert_eq!(images[0]["RepoTags"], json!(["localhost/complement:x"]));

    let copy = engine.created("complement_p_1_b_hs1_1", image, "hs1", json!({ "c": "5" })).await;
    let second = engine.start_container(&copy).await;
    let described = engine.get(&format!("/containers/{copy}/json")).await;
    assert_eq!(described["Config"]["Labels"], json!({ "a": "1", "b": "3", "c": "5" }));
    let root = engine.work().join(&copy);
    assert_eq!(fs::read_to_string(root.join("complement/ca/ca.crt")).unwrap(), "a CA");
    assert_eq!(fs::read_to_string(root.join("starts")).unwrap(), "started\nstarted\n");

    let (status, _) = engine.ask(Method::DELETE, &format!("/containers/{copy}"), json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "it is running");
    let (status, _) = engine.ask(Method::DELETE, &format!("/containers/{copy}?force=1"), json!({})).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(test_kill_process(second).is_err(), "it has ended");
    assert!(!root.exists());
    let (status, _) = engine.ask(Method::DELETE, &format!("/images/{image}"), json!({})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(engine.get("/images/json").await, json!([]));
    let folder = engine.end(Signal::TERM);
    assert!(folder.path().join(format!("logs/{copy}.log")).exists(), "logs stay");
}

#[tokio::test]
async fn deployments_of_the_same_names_live_side_by_side() {
    let engine = Engine::start();
    for (name, context, alias, address) in [
        ("complement_p_1_p.b.hs1_1", "p.b.hs1", "hs1", "127.77.1.1"),
        ("complement_p_2_p.b.hs2_1", "p.b.hs2", "hs2", "127.77.2.2"),
        ("complement_p_2_p.b.hs1_2", "p.b.hs1", "hs1", "127.77.2.1"),
        ("complement_p_1_p.b.hs2_2", "p.b.hs2", "hs2", "127.77.1.2"),
    ] {
        let id = engine.created(name, "fake", alias, json!({ "complement_context": context })).await;
        engine.start_container(&id).await;
        let log = fs::read_to_string(engine.folder.path().join(format!("logs/{id}.log"))).unwrap();
        assert!(log.contains(&format!("{alias} at {address} ")), "{log}");
    }
    assert_eq!(engine.get("/containers/json").await.as_array().unwrap().len(), 4);
    engine.end(Signal::TERM);
}

#[tokio::test]
async fn nothing_is_left_however_the_engine_ends() {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let engine = Engine::start();
        let id = engine.created("complement_x", "fake", "hs1", json!({})).await;
        let pid = engine.start_container(&id).await;
        assert!(test_kill_process(pid).is_ok());
        let work = engine.work();
        assert!(work.exists());
        let folder = engine.end(signal);
        wait_for_end(pid);
        assert!(!work.exists(), "{signal:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(folder.path().to_str().unwrap()), "{mounts}");
        // A process that nobody waited for would have become our child.
        assert!(waitpid(Some(pid), WaitOptions::NOHANG).is_err());
    }
}

#[tokio::test]
async fn only_loopback_is_served_and_given_out() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let folder = tempfile::tempdir().unwrap();
        let refused = engine(folder.path(), listen).stdout(Stdio::piped()).output().unwrap();
        assert!(!refused.status.success());
        assert_eq!(String::from_utf8_lossy(&refused.stdout), "");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("not a loopback address"));
        assert!(!folder.path().join("work").exists());
    }
    let engine = Engine::start();
    // Neither an alias nor a variable of the container changes where a server listens.
    let (status, _) = engine.create("complement_y", "fake", "web", json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    engine.end(Signal::TERM);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_reason() {
    let engine = Engine::start();
    let (status, body) = engine.create("complement_z", "no-such-launcher", "hs1", json!({})).await;
    assert_eq!((status, &body["message"]), (StatusCode::NOT_FOUND, &json!("no such image: no-such-launcher")));
    assert_eq!(engine.create("complement_z", "../fake", "hs1", json!({})).await.0, StatusCode::NOT_FOUND);
    engine.created("complement_z", "fake", "hs1", json!({})).await;
    assert_eq!(engine.create("complement_z", "fake", "hs1", json!({})).await.0, StatusCode::CONFLICT, "the same name");
    assert_eq!(engine.post("/containers/nobody/start").await, StatusCode::NOT_FOUND);
    assert_eq!(engine.post("/containers/complement_z/kill").await, StatusCode::CONFLICT, "it is not running");
    engine.end(Signal::TERM);
}
