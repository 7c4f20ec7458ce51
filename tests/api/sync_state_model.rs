//! A model of the state in `/sync`: a client that only follows it knows what `/state` says.
//!
//! Random operations of three users in two rooms, over all history visibilities. Clients use all options, and some
//! answers are lost. A failing seed replays with `SABHA_SYNC_STATE_SEED=… cargo test --test api sync_state_model`.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::harness::{
    Client, TestServer,
    follower::{Follower, Way},
    v3,
};

const FOLLOWERS_OF_EACH: usize = 4;
const OPERATIONS: usize = 120;

/// Random runs for each engine, unless a seed is given. `SABHA_SYNC_STATE_RUNS=500` makes more.
const RUNS: u64 = 3;

/// An operation of a user on a room. Many are refused, which is fine.
#[derive(Debug, Clone)]
pub enum Operation {
    Say,
    Set { event_type: &'static str, state_key: String, content: Value },
    Join,
    Leave,
    Forget,
    Invite { other: String },
    Kick { other: String },
    Ban { other: String },
    Unban { other: String },
    Rename { name: String },
}

impl Operation {
    pub fn random(rng: &mut StdRng, step: usize, others: &[String]) -> Self {
        let other = others[rng.random_range(0..others.len())].clone();
        let set =
            |event_type, state_key: &str, content| Self::Set { event_type, state_key: state_key.to_owned(), content };
        let visibility = ["world_readable", "shared", "invited", "joined"];
        match rng.random_range(0..24) {
            0..=4 => Self::Say,
            5 | 6 => set("m.room.topic", "", json!({ "topic": step.to_string() })),
            // A room with an empty name is named after its members.
            7 => set("m.room.name", "", json!({ "name": if rng.random() { step.to_string() } else { String::new() } })),
            8 | 9 => set("org.sabha.test", &(step % 3).to_string(), json!({ "value": step })),
            10 => set("m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2", "step": step })),
            11 => {
                let url = if rng.random() { json!({ "url": format!("mxc://x/{step}") }) } else { json!({}) };
                set("m.room.avatar", "", url)
            }
            12 | 13 => {
                let visibility = visibility[rng.random_range(0..4)];
                set("m.room.history_visibility", "", json!({ "history_visibility": visibility }))
            }
            14..=16 => Self::Join,
            17 => Self::Leave,
            18 => Self::Forget,
            19 => Self::Invite { other },
            20 => Self::Kick { other },
            21 => Self::Ban { other },
            22 => Self::Unban { other },
            _ => Self::Rename { name: step.to_string() },
        }
    }

    /// Runs the operation, and returns whether it was allowed.
    pub async fn run(&self, user: &Client, room: &str, txn: &str) -> bool {
        let target = |other: &str| json!({ "user_id": other });
        let path = |what: &str| v3(["rooms", room, what]);
        let answer = match self {
            Self::Say => {
                let body = json!({ "msgtype": "m.text", "body": txn });
                user.put(&v3(["rooms", room, "send", "m.room.message", txn]), body).await
            }
            Self::Set { event_type, state_key, content } => {
                user.put(&v3(["rooms", room, "state", event_type, state_key]), content.clone()).await
            }
            Self::Join => user.post(&v3(["join", room]), json!({})).await,
            Self::Leave => user.post(&path("leave"), json!({})).await,
            Self::Forget => user.post(&path("forget"), json!({})).await,
            Self::Invite { other } => user.post(&path("invite"), target(other)).await,
            Self::Kick { other } => user.post(&path("kick"), target(other)).await,
            Self::Ban { other } => user.post(&path("ban"), target(other)).await,
            Self::Unban { other } => user.post(&path("unban"), target(other)).await,
            Self::Rename { name } => {
                user.put(&v3(["profile", &user.user_id, "displayname"]), json!({ "displayname": name })).await
            }
        };
        assert!(!answer.status.is_server_error(), "{self:?}: {}", answer.text);
        answer.status.is_success()
    }
}

async fn run(server: &TestServer, seed: u64) {
    println!("SABHA_SYNC_STATE_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut users = Vec::new();
    for name in ["alice", "bob", "carol"] {
        users.push(server.register(&format!("{name}-{seed}")).await);
    }
    let user_ids: Vec<String> = users.iter().map(|user| user.user_id.clone()).collect();
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let room = json!({
            "preset": "public_chat",
            "power_level_content_override": { "state_default": 0, "events": { "m.room.history_visibility": 0, "m.room.encryption": 0 } },
        });
        rooms.push(users[0].create_room(room).await);
    }
    let mut followers = Vec::new();
    for user in &users {
        for _ in 0..FOLLOWERS_OF_EACH {
            followers.push(Follower::new(user.login_again().await, Way::random(&mut rng, &user_ids)));
        }
    }
    for step in 0..OPERATIONS {
        let operation = Operation::random(&mut rng, step, &user_ids[1..]);
        // The creator may do the most, and acts the most.
        let user = &users[[0, 0, 1, 2][rng.random_range(0..4)]];
        let room = &rooms[rng.random_range(0..rooms.len())];
        let allowed = operation.run(user, room, &format!("{seed}-{step}")).await;
        if allowed && matches!(operation, Operation::Forget) {
            let of_user = |follower: &&mut Follower| follower.client.user_id == user.user_id;
            followers.iter_mut().filter(of_user).for_each(|follower| _ = follower.forgotten.insert(room.clone()));
        }
        let count = followers.len();
        let follower = &mut followers[rng.random_range(0..count)];
        match rng.random_range(0..6) {
            // The answer is lost.
            0 => _ = follower.ask().await,
            1..=3 => {
                follower.sync().await;
                follower.compare().await;
            }
            _ => {}
        }
    }
    for follower in &mut followers {
        follower.sync().await;
        follower.compare().await;
    }
}

both_engines! {
    async fn a_client_that_follows_sync_knows_the_state_of_its_rooms(server: TestServer) {
        let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        match number("SABHA_SYNC_STATE_SEED") {
            Some(seed) => run(&server, seed).await,
            None => {
                for _ in 0..number("SABHA_SYNC_STATE_RUNS").unwrap_or(RUNS) {
                    run(&server, rand::random()).await;
                }
            }
        }
    }
}
