//! Several processes on one PostgreSQL. The one that writes is put to sleep or killed, and another one takes over: nothing
//! that was answered is lost, and a request that is repeated elsewhere does nothing twice.
//!
//! The processes are copies of this program, because the configuration of the server does not know of several processes
//! yet.

use std::{env, ffi::OsStr, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use reqwest::Method;
use ruma::ServerName;
use sabha::{
    account::password::Hashing,
    config::{Config, DatabaseUrl, Listener, RegistrationMode},
    http::{listen::Address, shutdown::Shutdown},
    server::{Server, build, signing_key},
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

/// The time without a sign of life after which a process takes over, in tests shorter than for people.
const SILENCE: Duration = Duration::from_millis(500);

/// The pause before a request is sent again to another process.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The number of times that the writing process sleeps or dies.
const ROUNDS: usize = 6;

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
            let server = Server::start(app, shutdown, None).await.unwrap_or_else(|error| panic!("{error}"));
            let Some(Address::Tcp(address)) = server.addresses.first() else { panic!("the listener is TCP") };
            println!("listens {address}");
            std::future::pending().await
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
    /// Sends a message to these processes in turn, until one of them takes it. Returns the index of that one, and the ID.
    async fn send(&self, to: &[Api], body: &str) -> (usize, String) {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{body}", segment(&self.room));
        let message = json!({ "msgtype": "m.text", "body": body });
        loop {
            for (index, api) in to.iter().enumerate() {
                match api.try_any(Method::PUT, &path, &self.token, Some(&message)).await {
                    Some((200, answer)) => return (index, text(&answer, "event_id").to_owned()),
                    // Another one writes, or this one was killed.
                    Some((503, _)) | None => {}
                    Some((status, answer)) => panic!("{body}: {status} {answer}"),
                }
            }
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
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

pub fn the_lease_moves(_: Run) -> Option<String> {
    Run::block_on(async {
        let data = Data::on_postgres().await?;
        let mut nodes = vec![start(&data, 0)];
        let first = &nodes[0].api;
        let token = text(&first.register("alice").await, "access_token").to_owned();
        let room = text(&first.post("/createRoom", &token, &json!({})).await, "room_id").to_owned();
        let sender = Sender { token, room };
        nodes.push(start(&data, 1));

        let mut sent: Vec<(String, String)> = Vec::new();
        let mut leader = 0;
        for round in 0..ROUNDS {
            let apis: Vec<Api> = nodes.iter().map(|node| node.api.clone()).collect();
            for number in 0..MESSAGES {
                let body = format!("{round}-{number}");
                let (index, event_id) = sender.send(&apis, &body).await;
                leader = index;
                sent.push((event_id, body));
            }
            // One request is on its way to the leader, and is repeated until somebody answers it.
            let (late, to) = (format!("{round}-late"), [apis[leader].clone(), apis[1 - leader].clone()]);
            let asleep = tokio::spawn({
                let (sender, late) = (sender.clone(), late.clone());
                async move { sender.send(&to, &late).await.1 }
            });
            let kills = round % 2 == 1;
            if kills {
                let killed = std::mem::replace(&mut nodes[leader], start(&data, 2 + round));
                killed.kill();
            } else {
                nodes[leader].pause();
            }
            let awake = format!("{round}-awake");
            let (_, event_id) =
                sender.send(&[apis[1 - leader].clone(), nodes_api(&nodes, leader, kills)], &awake).await;
            if !kills {
                nodes[leader].wake();
            }
            let late_id = asleep.await.expect("it is answered");
            // Which of the two came first is not known.
            sent.extend([(event_id, awake), (late_id, late)]);
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

/// The API of a process that answers while the other one may be the leader: the one that was started in place of a killed
/// one, or the other one again.
fn nodes_api(nodes: &[Running], leader: usize, kills: bool) -> Api {
    nodes[if kills { leader } else { 1 - leader }].api.clone()
}

/// Waits until a process has seen as many messages. It follows the others by itself.
async fn wait_for(sender: &Sender, api: &Api, count: usize) -> Vec<(String, String)> {
    loop {
        let found = sender.messages(api).await;
        if found.len() >= count {
            return found;
        }
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
}
