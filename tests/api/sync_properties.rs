//! `/sync` as a whole: whatever happens and however a client syncs, it ends up with the same knowledge.
//!
//! Three users act at random in three rooms. Clients of each user, with different options, sync now and then. Some
//! answers are lost, and the client repeats the request with its old token. At the end each client must know what a new
//! client learns from its first sync, `/state` and `/messages`. So sync(a→b) and sync(b→c) together give what sync(a→c)
//! gives.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

const USERS: usize = 3;
const ROOMS: usize = 3;
const ACTIONS: usize = 150;

/// Number of syncs after which a client must have all news.
const CATCH_UP_SYNCS: usize = 4;

/// The options with which a client syncs.
#[derive(Debug, Clone, Copy)]
struct Kind {
    state_after: bool,
    lazy: bool,
    timeline_limit: u32,
}

const KINDS: [Kind; 4] = [
    Kind { state_after: false, lazy: false, timeline_limit: 3 },
    Kind { state_after: true, lazy: false, timeline_limit: 1 },
    Kind { state_after: false, lazy: true, timeline_limit: 2 },
    Kind { state_after: true, lazy: true, timeline_limit: 10 },
];

/// A client's knowledge of a room.
#[derive(Debug, Default)]
struct Known {
    /// Event IDs without gaps, oldest first.
    timeline: Vec<String>,
    state: BTreeMap<(String, String), String>,
    account_data: BTreeMap<String, Value>,
    /// For each user, the event that was read last.
    receipts: BTreeMap<String, String>,
    unread: Value,
}

/// A client that remembers what `/sync` told it.
struct Model {
    client: Client,
    kind: Kind,
    since: Option<String>,
    rooms: BTreeMap<String, Known>,
    joined: BTreeSet<String>,
    invited: BTreeSet<String>,
    account_data: BTreeMap<String, Value>,
    /// Numbers of received messages, in the order of arrival.
    letters: Vec<u64>,
}

impl Model {
    async fn ask(&self) -> Value {
        let Kind { state_after, lazy, timeline_limit } = self.kind;
        let filter = json!({
            "presence": { "types": [] },
            "room": { "timeline": { "limit": timeline_limit, "lazy_load_members": lazy }, "state": { "lazy_load_members": lazy } },
        });
        let filter: String = v3([&filter.to_string()]).rsplit('/').next().expect("one segment").to_owned();
        self.client
            .sync_with(self.since.as_deref(), &format!("timeout=0&filter={filter}&use_state_after={state_after}"))
            .await
    }

    async fn sync(&mut self) {
        let answer = self.ask().await;
        for (section, room_id, room) in rooms(&answer, &["join", "leave"]) {
            let known = self.rooms.entry(room_id.clone()).or_default();
            let is_joined = section == "join";
            if let Some(last) = known.timeline.last().filter(|_| is_joined && room["timeline"]["limited"] == true) {
                let from = room["timeline"]["prev_batch"].as_str().expect("a gap says where it ends");
                let gap = read_back(&self.client, room_id, Some(from), Some(last)).await;
                known.timeline.extend(gap);
            }
            let timeline = events(&room["timeline"]);
            let state = if self.kind.state_after { &room["state_after"] } else { &room["state"] };
            let in_timeline = timeline.iter().filter(|_| !self.kind.state_after);
            for event in events(state).iter().chain(in_timeline) {
                if let Some(key) = event["state_key"].as_str() {
                    known.state.insert((text(event, "type"), key.to_owned()), text(event, "event_id"));
                }
            }
            for event in timeline {
                known.timeline.push(text(event, "event_id"));
                let sender = ("m.room.member".to_owned(), text(event, "sender"));
                assert!(!is_joined || known.state.contains_key(&sender), "the sender of {event} is unknown");
            }
            for event in events(&room["account_data"]) {
                known.account_data.insert(text(event, "type"), event["content"].clone());
            }
            read_receipts(room, &mut known.receipts);
            known.unread = room["unread_notifications"].clone();
            self.invited.remove(room_id);
            if !is_joined {
                // Events in the user's absence are hidden until they come back. The client starts anew then.
                known.timeline.clear();
                known.state.clear();
            }
            if is_joined {
                self.joined.insert(room_id.clone())
            } else {
                self.joined.remove(room_id)
            };
        }
        for (_, room_id, _) in rooms(&answer, &["invite"]) {
            self.joined.remove(room_id);
            self.invited.insert(room_id.clone());
            // The user was removed from the room before the invitation, so the client starts anew here as well.
            if let Some(known) = self.rooms.get_mut(room_id) {
                known.timeline.clear();
                known.state.clear();
            }
        }
        for event in events(&answer["account_data"]) {
            self.account_data.insert(text(event, "type"), event["content"].clone());
        }
        self.letters
            .extend(events(&answer["to_device"]).iter().filter_map(|event| event["content"]["number"].as_u64()));
        self.since = Some(text(&answer, "next_batch"));
    }

    /// Compares the client's knowledge with the answers to a new client.
    async fn compare(&self, fresh: &Client, sent: &[u64]) {
        let answer = fresh.sync(None).await;
        let who = format!("{} {:?}", self.client.user_id, self.kind);
        let ids =
            |section| rooms(&answer, &[section]).into_iter().map(|(_, id, _)| id.clone()).collect::<BTreeSet<_>>();
        assert_eq!(self.joined, ids("join"), "joined rooms of {who}");
        assert_eq!(self.invited, ids("invite"), "invitations of {who}");
        assert_eq!(self.letters, sent, "messages to the device of {who}");
        for event in events(&answer["account_data"]) {
            let known = self.account_data.get(&text(event, "type"));
            assert_eq!(known, Some(&event["content"]), "account data of {who}");
        }
        for (_, room_id, room) in rooms(&answer, &["join"]) {
            let known = &self.rooms[room_id];
            let all = read_back(fresh, room_id, None, None).await;
            assert!(
                all.ends_with(&known.timeline),
                "timeline of {who} in {room_id}: {:?}, not the end of {all:?}",
                known.timeline
            );
            let state = fresh.get(&v3(["rooms", room_id, "state"])).await.ok();
            let state: BTreeMap<_, _> = state
                .as_array()
                .expect("a list")
                .iter()
                .map(|event| ((text(event, "type"), text(event, "state_key")), text(event, "event_id")))
                .collect();
            for (key, event_id) in &state {
                match known.state.get(key) {
                    Some(known) => assert_eq!(known, event_id, "the state {key:?} of {room_id}, for {who}"),
                    None => assert!(self.kind.lazy && key.0 == "m.room.member", "{who} lacks {key:?} of {room_id}"),
                }
            }
            assert!(known.state.keys().all(|key| state.contains_key(key)), "{who} has state that {room_id} has not");
            let account_data: BTreeMap<_, _> = events(&room["account_data"])
                .iter()
                .map(|event| (text(event, "type"), event["content"].clone()))
                .collect();
            assert_eq!(known.account_data, account_data, "account data of {who} in {room_id}");
            let mut receipts = BTreeMap::new();
            read_receipts(room, &mut receipts);
            assert_eq!(known.receipts, receipts, "receipts in {room_id}, for {who}");
            assert_eq!(known.unread, room["unread_notifications"], "unread counts in {room_id}, for {who}");
        }
    }
}

fn read_receipts(room: &Value, receipts: &mut BTreeMap<String, String>) {
    for event in events(&room["ephemeral"]).iter().filter(|event| event["type"] == "m.receipt") {
        for (event_id, kinds) in event["content"].as_object().into_iter().flatten() {
            for user in kinds["m.read"].as_object().into_iter().flatten().map(|(user, _)| user) {
                receipts.insert(user.clone(), event_id.clone());
            }
        }
    }
}

fn rooms<'a>(answer: &'a Value, sections: &[&'static str]) -> Vec<(&'static str, &'a String, &'a Value)> {
    let of = |section: &'static str| {
        answer["rooms"][section].as_object().into_iter().flatten().map(move |(room_id, room)| (section, room_id, room))
    };
    sections.iter().flat_map(|section| of(section)).collect()
}

fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {json}")).to_owned()
}

/// Returns the events before `from` (or the end), oldest first, as far back as `until` (not included) or the beginning.
async fn read_back(client: &Client, room_id: &str, from: Option<&str>, until: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let mut from = from.map(str::to_owned);
    loop {
        let page = from.map(|from| format!("&from={from}")).unwrap_or_default();
        let path = format!("{}?dir=b&limit=20{page}", v3(["rooms", room_id, "messages"]));
        let answer = client.get(&path).await.ok();
        for event in answer["chunk"].as_array().expect("a page has a chunk") {
            let event_id = text(event, "event_id");
            if until == Some(event_id.as_str()) {
                found.reverse();
                return found;
            }
            found.push(event_id);
        }
        from = answer["end"].as_str().map(str::to_owned);
        if from.is_none() {
            assert!(until.is_none(), "{until:?} is not in {room_id} any more");
            found.reverse();
            return found;
        }
    }
}

/// Does one random action. Many are refused, which is fine.
async fn act(rng: &mut StdRng, step: usize, users: &[Client], room_ids: &[String], sent: &mut [Vec<u64>]) {
    let (user, other) = (&users[rng.random_range(0..USERS)], rng.random_range(0..USERS));
    let other_id = &users[other].user_id;
    let room = room_ids[rng.random_range(0..ROOMS)].as_str();
    let (txn, value) = (step.to_string(), json!({ "value": step }));
    let some_event = read_back_if_joined(user, room).await;
    match rng.random_range(0..15) {
        0..=3 => {
            user.put(&v3(["rooms", room, "send", "m.room.message", &txn]), json!({ "msgtype": "m.text", "body": txn }))
                .await
        }
        4 | 5 => user.put(&v3(["rooms", room, "state", "org.sabha.test", &(step % 3).to_string()]), value).await,
        6 | 7 => user.post(&v3(["join", room]), json!({})).await,
        8 => user.post(&v3(["rooms", room, "leave"]), json!({})).await,
        9 => user.post(&v3(["rooms", room, "invite"]), json!({ "user_id": other_id })).await,
        10 => users[0].post(&v3(["rooms", room, "kick"]), json!({ "user_id": users[1 + other % 2].user_id })).await,
        11 => {
            let Some(event_id) = some_event else { return };
            if rng.random() {
                user.put(&v3(["rooms", room, "redact", &event_id, &txn]), json!({})).await
            } else {
                let kind = if rng.random() { "m.read" } else { "m.read.private" };
                user.post(&v3(["rooms", room, "receipt", kind, &event_id]), json!({})).await
            }
        }
        12 => user.put(&v3(["user", &user.user_id, "account_data", &format!("org.sabha.{}", step % 3)]), value).await,
        13 => {
            user.put(
                &v3(["user", &user.user_id, "rooms", room, "account_data", &format!("org.sabha.{}", step % 2)]),
                value,
            )
            .await
        }
        _ => {
            sent[other].push(step as u64);
            let body = json!({ "messages": { other_id: { "*": { "number": step } } } });
            user.put(&v3(["sendToDevice", "org.sabha.test", &txn]), body).await
        }
    };
}

/// Returns the newest message event, if the user may read the room and it has one.
async fn read_back_if_joined(user: &Client, room: &str) -> Option<String> {
    let answer = user.get(&format!("{}?dir=b&limit=10", v3(["rooms", room, "messages"]))).await;
    let newest_first = answer.json["chunk"].as_array()?;
    newest_first.iter().find(|event| event["type"] == "m.room.message").map(|event| text(event, "event_id"))
}

both_engines! {
    async fn every_way_of_syncing_ends_with_the_same_knowledge(server: TestServer) {
        let seed: u64 = std::env::var("SABHA_SYNC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        println!("SABHA_SYNC_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol"] {
            users.push(server.register(name).await);
        }
        let mut room_ids = Vec::new();
        for _ in 0..ROOMS {
            let room = json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0 } });
            room_ids.push(users[0].create_room(room).await);
        }
        let mut models = Vec::new();
        for user in &users {
            for kind in KINDS {
                models.push(Model {
                    client: user.login_again().await,
                    kind,
                    since: None,
                    rooms: BTreeMap::new(),
                    joined: BTreeSet::new(),
                    invited: BTreeSet::new(),
                    account_data: BTreeMap::new(),
                    letters: Vec::new(),
                });
            }
        }
        let mut sent = vec![Vec::new(); USERS];
        for step in 0..ACTIONS {
            act(&mut rng, step, &users, &room_ids, &mut sent).await;
            let model = rng.random_range(0..models.len());
            if rng.random_ratio(1, 4) {
                // The answer is lost: the client ignores it and keeps its token.
                models[model].ask().await;
            } else if rng.random_ratio(2, 3) {
                models[model].sync().await;
            }
        }
        for (index, model) in models.iter_mut().enumerate() {
            for _ in 0..CATCH_UP_SYNCS {
                model.sync().await;
            }
            let fresh = model.client.login_again().await;
            model.compare(&fresh, &sent[index / KINDS.len()]).await;
        }
    }
}
