//! A full disk: the server reports it, continues with work that needs no space, and has lost nothing when space is free
//! again.
//!
//! The data directory is a small file system in memory, in a mount namespace that outlives the server's processes.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    Run,
    api::{Api, segment, text},
    process::Data,
};

/// The size of the disk: a few times an empty database and its log.
const DISK: &str = "8m";

/// Number of messages of [`TEXT_BYTES`] of which one must be refused: far more than fit into the database's files.
const MOST: usize = 500;

const TEXT_BYTES: usize = 40_000;

/// Devices that sign in while the disk is full.
const SIGN_INS: usize = 30;

/// The mount namespace, which exists as long as this value.
struct Disk {
    holder: Child,
    dir: PathBuf,
}

impl Disk {
    /// Mounts the disk at `dir`. `None` where mounting is not allowed.
    fn mount(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).expect("the directory is ours");
        let script = format!("mount -t tmpfs -o size={DISK},mode=700 none \"$0\" && echo mounted && exec sleep 300");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", &script])
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it can be read");
        let disk = Self { holder, dir: dir.to_owned() };
        (line.trim() == "mounted").then_some(disk)
    }

    /// Returns the words to put before a command, so that it sees the disk.
    fn prefix(&self) -> Vec<String> {
        let target = self.holder.id().to_string();
        ["nsenter", "--preserve-credentials", "--user", "--mount", "--target", &target, "--"].map(str::to_owned).into()
    }

    fn filler(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.dir.strip_prefix("/").expect("it is absolute")).join("filler")
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("the disk is ours");
        let error =
            std::iter::repeat_with(|| filler.write_all(&[0; 4096])).find_map(Result::err).expect("it is bounded");
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }

    fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it was made");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().expect("it is our child");
        self.holder.wait().expect("it is our child");
    }
}

pub fn loses_nothing(_: Run) -> Option<String> {
    let mut data = Data::on_sqlite("power");
    let Some(disk) = Disk::mount(&data.data_dir()) else {
        println!("skipped: a file system cannot be mounted in a namespace of its own here");
        return None;
    };
    data.prefix = disk.prefix();
    Some(Run::block_on(fill_and_empty(&data, &disk)))
}

async fn fill_and_empty(data: &Data, disk: &Disk) -> String {
    let server = data.start();
    let alice = Person::register(&server.api).await;
    let mut answered: Vec<String> = Vec::new();
    disk.fill();
    let refusal = loop {
        assert!(answered.len() < MOST, "the disk is not full");
        match alice.send(&server.api, answered.len()).await {
            (200, answer) => answered.push(text(&answer, "event_id").to_owned()),
            refusal => break refusal,
        }
    };
    let (status, answer) = refusal;
    assert_eq!(status, 507, "{answer}");
    assert!(text(&answer, "error").contains("disk is full"), "{answer}");
    let (status, ready) = server.api.any(Method::GET, "/ready", "", None).await;
    assert_eq!(status, 503, "{ready}");
    assert!(ready.to_string().contains("disk of the database is full"), "{ready}");
    // Reading still works, and so does signing in and out.
    assert_eq!(alice.timeline(&server.api).await, answered);
    let mut signed_in = Vec::new();
    for _ in 0..SIGN_INS {
        let answer = server.api.post("/login", "", &login()).await;
        let token = text(&answer, "access_token").to_owned();
        server.api.get("/sync?timeout=0", &token).await;
        signed_in.push(token);
        // Messages cannot use the space that is reserved for it.
        let (status, answer) = alice.send(&server.api, answered.len()).await;
        assert_eq!(status, 507, "{answer}");
    }
    server.api.post("/logout", &signed_in.pop().expect("there are some"), &json!({})).await;
    let (status, ready) = server.api.any(Method::GET, "/ready", "", None).await;
    assert_eq!(status, 503, "{ready}");
    disk.make_room();
    let (status, answer) = alice.send(&server.api, answered.len()).await;
    assert_eq!(status, 200, "{answer}");
    answered.push(text(&answer, "event_id").to_owned());
    let (status, ready) = server.api.any(Method::GET, "/ready", "", None).await;
    assert_eq!(status, 200, "{ready}");
    server.kill();
    let server = data.start();
    assert_eq!(alice.timeline(&server.api).await, answered);
    for token in &signed_in {
        server.api.get("/account/whoami", token).await;
    }
    format!("{} events answered", answered.len())
}

fn login() -> Value {
    json!({
        "type": "m.login.password", "password": "correct horse battery",
        "identifier": { "type": "m.id.user", "user": "alice" },
    })
}

/// An account with a room.
struct Person {
    token: String,
    room: String,
}

impl Person {
    async fn register(api: &Api) -> Self {
        let token = text(&api.register("alice").await, "access_token").to_owned();
        let room = api.post("/createRoom", &token, &json!({})).await;
        Self { token, room: segment(text(&room, "room_id")) }
    }

    async fn send(&self, api: &Api, number: usize) -> (u16, Value) {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{number}", self.room);
        let body = json!({ "msgtype": "m.text", "body": "x".repeat(TEXT_BYTES) });
        api.any(Method::PUT, &path, &self.token, Some(&body)).await
    }

    /// Returns the event IDs of the room's messages, oldest first.
    async fn timeline(&self, api: &Api) -> Vec<String> {
        let filter = "filter=%7B%22types%22%3A%5B%22m.room.message%22%5D%7D";
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = api.get(&format!("/rooms/{}/messages?dir=f&{filter}{from}", self.room), &self.token).await;
            let events = page["chunk"].as_array().expect("a page has one");
            found.extend(events.iter().map(|event| text(event, "event_id").to_owned()));
            match page["end"].as_str().filter(|_| !events.is_empty()) {
                Some(end) => from = format!("&from={end}"),
                None => return found,
            }
        }
    }
}
