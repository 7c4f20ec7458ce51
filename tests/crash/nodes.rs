//! Several processes on one PostgreSQL. The one that writes is put to sleep or killed, and another one takes over: nothing
//! that was answered is lost, and a request that is repeated elsewhere does nothing twice.
//!
//! The processes are copies of this program, because the configuration of the server does not know of several processes
//! yet.

use std::{env, ffi::OsStr, fs, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use reqwest::Method;
use ruma::ServerName;
use sabha::{
    account::password::Hashing,
    config::{Config, DatabaseUrl, Listener, RegistrationMode},
    http::{listen::Address, shutdown::Shutdown},
    remote::signing_key,
    server::{Server, build},
    store::{Patience, Role},
};
use serde_json::{Value, json};

use crate::{
    Run,
    api::{Api, segment, text},
    process::{Data, Running, SERVER_NAME},
};

/// The variables that make this program a process of the server.
const DIRECTORY: &str = "SABHA_CRASH_NODE";
const DATABASE: &str = "SABHA_CRASH_DATABASE";

/// The time without a sign of life after which a process takes over: shorter than for people, and longer than a busy machine
/// keeps a process waiting.
const SILENCE: Duration = Duration::from_secs(2);

/// The line that a process prints whenever it begins to write.
const LEADS: &str = "leads";

/// The number of times that the writing process sleeps or dies.
const ROUNDS: usize = 4;

/// The messages that are sent in each round.
const MESSAGES: usize = 5;

/// A process that shares its database with others.
pub struct Node {
    directory: PathBuf,
    database: String,
}

impl Node {
    /// The process that this one is to be, if it was started as one.
    pub fn of_this_process() -> Option<Self> {
        Some(Self { directory: env::var_os(DIRECTORY)?.into(), database: env::var(DATABASE).ok()? })
    }

    /// Serves until the process is killed.
    pub fn serve(self) -> ! {
        Run::block_on(async {
            let server_name = ServerName::parse(SERVER_NAME).expect("a server name");
            let mut config = Config { server_name, ..Config::default() };
            config.data_dir = self.directory;
            config.listeners = vec![Listener::tcp((Ipv4Addr::LOCALHOST, 0).into())];
            config.metrics.enabled = false;
            config.registration.mode = RegistrationMode::Open;
            config.rate_limits.enabled = false;
            config.database.url = Some(DatabaseUrl::try_from(self.database).expect("a database URL"));
            let shutdown = Shutdown::new();
            let patience = Patience {
                look: Duration::from_millis(20),
                beat: SILENCE / 5,
                silence: SILENCE,
                ..Patience::default()
            };
            let surroundings = build::Surroundings {
                hashing: Hashing::cheap(),
                stopping: shutdown.token().clone(),
                patience,
                role: Role::Follow,
                ..build::Surroundings::default()
            };
            let app = build::app(config, surroundings).await.unwrap_or_else(|error| panic!("{error}"));
            let db = Arc::clone(&app.db);
            let server = Server::start(app, shutdown, None).await.unwrap_or_else(|error| panic!("{error}"));
            let Some(Address::Tcp(address)) = server.addresses.first() else { panic!("the listener is TCP") };
            println!("listens {address}");
            loop {
                db.committer().leading().await;
                println!("{LEADS}");
                db.committer().following().await;
            }
        })
    }
}

/// Starts a process. All have the signing key of the first one.
fn start(data: &Data, number: usize) -> Running {
    let directory = |number: usize| data.dir.path().join(format!("node{number}"));
    let own = directory(number);
    fs::create_dir_all(&own).expect("the directory is ours");
    if number > 0 {
        let key = directory(0).join(signing_key::FILE);
        fs::copy(key, own.join(signing_key::FILE)).expect("the first process has made it");
    }
    let database = data.database_url().expect("it is on PostgreSQL");
    data.spawn_own(&[(DIRECTORY, own.as_os_str()), (DATABASE, OsStr::new(database))]).ready()
}

/// A client in a room.
#[derive(Clone)]
struct Sender {
    token: String,
    room: String,
}

impl Sender {
    /// Sends a message to a process. `None` if another one writes, or if this one was killed.
    async fn try_send(&self, api: &Api, body: &str) -> Option<String> {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{body}", segment(&self.room));
        let message = json!({ "msgtype": "m.text", "body": body });
        match api.try_any(Method::PUT, &path, &self.token, Some(&message)).await {
            Some((200, answer)) => Some(text(&answer, "event_id").to_owned()),
            Some((503, _)) | None => None,
            Some((status, answer)) => panic!("{body}: {status} {answer}"),
        }
    }

    async fn send(&self, api: &Api, body: &str) -> String {
        self.try_send(api, body).await.unwrap_or_else(|| panic!("{body}: this process writes"))
    }

    /// The messages of the room, oldest first: event ID and text.
    async fn messages(&self, api: &Api) -> Vec<(String, String)> {
        let path = format!("/rooms/{}/messages?dir=f&limit=1000", segment(&self.room));
        let page = api.get(&path, &self.token).await;
        let events: &[Value] = page["chunk"].as_array().map_or(&[], Vec::as_slice);
        let messages = events.iter().filter(|event| event["type"] == "m.room.message");
        messages.map(|event| (text(event, "event_id").to_owned(), text(&event["content"], "body").to_owned())).collect()
    }
}

/// Waits until a process begins to write.
async fn leads(node: &mut Running) {
    while node.said.recv().await.expect("it runs") != LEADS {}
}

pub fn the_lease_moves(_: Run) -> Option<String> {
    Run::block_on(async {
        let data = Data::on_postgres().await?;
        let mut nodes = vec![start(&data, 0)];
        let mut leader = 0;
        leads(&mut nodes[leader]).await;
        let first = &nodes[leader].api;
        let token = text(&first.register("alice").await, "access_token").to_owned();
        let room = text(&first.post("/createRoom", &token, &json!({})).await, "room_id").to_owned();
        let sender = Sender { token, room };
        nodes.push(start(&data, 1));

        let mut sent: Vec<(String, String)> = Vec::new();
        for round in 0..ROUNDS {
            let old = nodes[leader].api.clone();
            for number in 0..MESSAGES {
                let body = format!("{round}-{number}");
                sent.push((sender.send(&old, &body).await, body));
            }
            let sleeper = leader;
            let spare = (round % 2 == 1).then(|| start(&data, 2 + round));
            let kills = spare.is_some();
            // One request is on its way while the process that writes falls asleep or dies.
            let late = format!("{round}-late");
            let asleep = tokio::spawn({
                let (sender, late) = (sender.clone(), late.clone());
                async move { sender.try_send(&old, &late).await }
            });
            match spare {
                Some(spare) => std::mem::replace(&mut nodes[sleeper], spare).kill(),
                None => nodes[sleeper].pause(),
            }
            let [first, second] = nodes.as_mut_slice() else { panic!("there are two") };
            leader = tokio::select! {
                () = leads(first) => 0,
                () = leads(second) => 1,
            };
            let awake = format!("{round}-awake");
            let awake_id = sender.send(&nodes[leader].api, &awake).await;
            if !kills {
                nodes[sleeper].wake();
            }
            // Its client repeats a request that was not answered.
            let first_id = asleep.await.expect("it ends");
            let late_id = sender.send(&nodes[leader].api, &late).await;
            assert!(first_id.is_none_or(|first_id| first_id == late_id), "the repeated request sends nothing twice");
            sent.extend([(awake_id, awake), (late_id, late)]);
        }
        sent.sort();
        for node in &nodes {
            let mut found = wait_for(&sender, &node.api, sent.len()).await;
            found.sort();
            assert_eq!(found, sent, "each message once, with the ID that was answered");
        }
        Some(format!("{} messages, {ROUNDS} moves", sent.len()))
    })
}

/// Waits until a process has seen as many messages. It follows the others by itself, and tells a sync of each commit.
async fn wait_for(sender: &Sender, api: &Api, count: usize) -> Vec<(String, String)> {
    let mut answer = api.get("/sync", &sender.token).await;
    loop {
        let found = sender.messages(api).await;
        if found.len() >= count {
            return found;
        }
        let since = text(&answer, "next_batch");
        answer = api.get(&format!("/sync?timeout=30000&since={since}"), &sender.token).await;
    }
}
