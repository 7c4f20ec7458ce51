//! The accounts of a test, and the events that were seen in its rooms.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Value, json};

use crate::api::{Api, segment, text};

/// Number of accounts; each has its own lanes.
pub const ACCOUNTS: usize = 4;

/// Number of rooms that all accounts are in during the whole test.
const ROOMS: usize = 3;

#[derive(Debug)]
pub struct Account {
    pub user_id: String,
    pub device_id: String,
    pub token: String,
}

/// An event as a timeline shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub event_id: String,
    /// The text that our lanes write into each event; no text is used twice.
    pub nonce: Option<String>,
    pub state_key: Option<String>,
}

impl Seen {
    pub fn new(event: &Value) -> Self {
        let nonce = event["content"]["body"].as_str().map(str::to_owned);
        let state_key = event["state_key"].as_str().map(str::to_owned);
        Self { event_id: text(event, "event_id").to_owned(), nonce, state_key }
    }
}

/// A room that all accounts are in.
#[derive(Debug)]
pub struct Room {
    pub room_id: String,
    /// All events that `/messages` has returned, oldest first. The list may only grow.
    pub timeline: Vec<Seen>,
    /// Number of events that were compared with the lanes' answers.
    pub checked: usize,
    /// The event IDs and nonces of the timeline.
    known: HashSet<String>,
}

pub struct World {
    pub accounts: Vec<Arc<Account>>,
    pub rooms: Vec<Room>,
    /// A room that accounts join and leave.
    pub churn_room: String,
}

impl World {
    pub async fn create(api: &Api) -> Self {
        let mut accounts = Vec::new();
        for index in 0..ACCOUNTS {
            let answer = api.register(&format!("user{index}")).await;
            let text = |key| text(&answer, key).to_owned();
            accounts.push(Arc::new(Account {
                user_id: text("user_id"),
                device_id: text("device_id"),
                token: text("access_token"),
            }));
        }
        let owner = &accounts[0].token;
        let body = json!({ "preset": "public_chat", "power_level_content_override": { "state_default": 0 } });
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            let room_id = text(&api.post("/createRoom", owner, &body).await, "room_id").to_owned();
            for account in &accounts[1..] {
                api.post(&format!("/join/{}", segment(&room_id)), &account.token, &json!({})).await;
            }
            let mut room = Room { room_id, timeline: Vec::new(), checked: 0, known: HashSet::new() };
            room.read_on(api, owner).await;
            room.checked = room.timeline.len();
            rooms.push(room);
        }
        let churn_room = text(&api.post("/createRoom", owner, &body).await, "room_id").to_owned();
        Self { accounts, rooms, churn_room }
    }

    pub fn room_ids(&self) -> Vec<String> {
        self.rooms.iter().map(|room| room.room_id.clone()).collect()
    }
}

impl Room {
    /// Reads the events after the last known one.
    ///
    /// # Panics
    /// When that event no longer exists, or an event exists twice.
    pub async fn read_on(&mut self, api: &Api, token: &str) {
        let last = self.timeline.last().map(|event| event.event_id.clone());
        let new = read_back(api, token, &self.room_id, None, last.as_deref()).await;
        for event in new {
            for name in event.nonce.iter().chain([&event.event_id]) {
                assert!(self.known.insert(name.clone()), "{name} is in {} twice", self.room_id);
            }
            self.timeline.push(event);
        }
    }

    /// Reads the room from its beginning, and compares it with all events that were seen in it.
    pub async fn read_again(&self, api: &Api, token: &str) {
        let all = read_back(api, token, &self.room_id, None, None).await;
        assert!(all == self.timeline, "the timeline of {} has changed", self.room_id);
    }
}

/// Returns the events before the page token `from` (by default the end), oldest first, as far back as the event `until`
/// (not included), or the beginning.
pub async fn read_back(api: &Api, token: &str, room_id: &str, from: Option<&str>, until: Option<&str>) -> Vec<Seen> {
    let mut events = Vec::new();
    let mut from = from.map(str::to_owned);
    loop {
        let page = from.as_deref().map(|from| format!("&from={}", segment(from))).unwrap_or_default();
        let path = format!("/rooms/{}/messages?dir=b&limit=100{page}", segment(room_id));
        let answer = api.get(&path, token).await;
        for event in answer["chunk"].as_array().expect("a page has a chunk") {
            let event = Seen::new(event);
            if until == Some(event.event_id.as_str()) {
                events.reverse();
                return events;
            }
            events.push(event);
        }
        from = answer["end"].as_str().map(str::to_owned);
        if from.is_none() {
            assert!(until.is_none(), "the event {} of {room_id} is gone", until.unwrap_or_default());
            events.reverse();
            return events;
        }
    }
}
