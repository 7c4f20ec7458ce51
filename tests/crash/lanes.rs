//! Lanes: each sends one request after another until the server dies, and remembers the answers.
//!
//! So after a kill each lane has at most one request without an answer.

use std::{ops::Range, sync::Arc};

use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    api::{Api, Outcome, segment, text},
    world::{Account, Room},
};

/// Number of account data types of an account.
const DATA_TYPES: usize = 3;

/// Number of one-time keys to keep available, and of those in one upload.
const KEYS_WANTED: u64 = 30;
const KEYS_AT_ONCE: u64 = 5;

pub trait Lane: Send + 'static {
    /// Sends requests until the server dies.
    fn run(&mut self, api: &Api) -> impl Future<Output = ()> + Send;

    /// Repeats the request without an answer after a restart, and checks data that no other lane changes.
    fn settle(&mut self, api: &Api) -> impl Future<Output = ()> + Send;
}

/// Sends messages and sets state.
pub struct SendLane {
    account: Arc<Account>,
    name: String,
    room_ids: Vec<String>,
    rng: StdRng,
    count: u64,
    /// Events sent since the last check.
    pub sent: Vec<Sent>,
}

/// An event that was requested.
pub struct Sent {
    room: usize,
    pub nonce: String,
    path: String,
    body: Value,
    is_state: bool,
    /// The answered event ID.
    event_id: Option<String>,
}

impl SendLane {
    pub fn new(account: &Arc<Account>, name: String, room_ids: Vec<String>, rng: StdRng) -> Self {
        Self { account: Arc::clone(account), name, room_ids, rng, count: 0, sent: Vec::new() }
    }

    fn next(&mut self) -> Sent {
        self.count += 1;
        let nonce = format!("{}-{}", self.name, self.count);
        let room = self.rng.random_range(0..self.room_ids.len());
        let is_state = self.rng.random_ratio(1, 8);
        let place = if is_state {
            format!("state/org.sabha.crash/{}", self.name)
        } else {
            format!("send/m.room.message/{nonce}")
        };
        let path = format!("/rooms/{}/{place}", segment(&self.room_ids[room]));
        let body = json!({ "msgtype": "m.text", "body": nonce });
        Sent { room, nonce, path, body, is_state, event_id: None }
    }

    /// Compares the answers with the timelines and forgets them. Returns the number of answered events.
    pub fn compare(&mut self, rooms: &[Room]) -> usize {
        let mut last = vec![0; rooms.len()];
        let mut answered = 0;
        for sent in self.sent.drain(..) {
            let room = &rooms[sent.room];
            let new = &room.timeline[room.checked..];
            let found = new.iter().position(|event| event.nonce.as_ref() == Some(&sent.nonce));
            match (&sent.event_id, found) {
                (Some(event_id), Some(index)) => {
                    assert_eq!(new[index].event_id, *event_id, "the event of {}", sent.nonce);
                    assert!(index >= last[sent.room], "{} is before an event that was answered earlier", sent.nonce);
                    last[sent.room] = index;
                    answered += 1;
                }
                (Some(event_id), None) => panic!("{event_id} ({}) was answered and is lost", sent.nonce),
                (None, _) => {}
            }
        }
        answered
    }
}

impl Lane for SendLane {
    async fn run(&mut self, api: &Api) {
        loop {
            let mut sent = self.next();
            let outcome = api.ask(Method::PUT, &sent.path, &self.account.token, Some(&sent.body)).await;
            let lost = matches!(outcome, Outcome::Lost);
            if let Outcome::Answered(answer) = outcome {
                sent.event_id = Some(text(&answer, "event_id").to_owned());
            }
            self.sent.push(sent);
            if lost {
                return;
            }
        }
    }

    /// Repeats every transaction ID since the last check, answered or not.
    async fn settle(&mut self, api: &Api) {
        for sent in self.sent.iter_mut().filter(|sent| !sent.is_state) {
            let answer = api.put(&sent.path, &self.account.token, &sent.body).await;
            let event_id = text(&answer, "event_id").to_owned();
            let first = sent.event_id.get_or_insert_with(|| event_id.clone());
            assert_eq!(*first, event_id, "the transaction ID of {} was repeated", sent.nonce);
        }
    }
}

/// Writes account data, sends messages to the next account's device, uploads one-time keys, and claims those of the
/// next account.
pub struct DataLane {
    account: Arc<Account>,
    neighbour: Arc<Account>,
    rng: StdRng,
    count: u64,
    /// For each type, the last value that was answered and the last that was requested.
    data: [(u64, u64); DATA_TYPES],
    /// Messages to the neighbour, in order: all of them are answered after [`Self::settle`].
    pub letters: Vec<String>,
    unanswered_letter: Option<(String, Value, String)>,
    /// Keys are numbered in the order of their upload.
    uploaded: u64,
    unanswered_upload: Option<Range<u64>>,
    /// The neighbour's keys that we received.
    claimed: Vec<u64>,
    unanswered_claims: u64,
}

impl DataLane {
    pub fn new(account: &Arc<Account>, neighbour: &Arc<Account>, rng: StdRng) -> Self {
        Self {
            account: Arc::clone(account),
            neighbour: Arc::clone(neighbour),
            rng,
            count: 0,
            data: [(0, 0); DATA_TYPES],
            letters: Vec::new(),
            unanswered_letter: None,
            uploaded: 0,
            unanswered_upload: None,
            claimed: Vec::new(),
            unanswered_claims: 0,
        }
    }

    fn data_path(&self, index: usize) -> String {
        format!("/user/{}/account_data/org.sabha.crash.{index}", segment(&self.account.user_id))
    }

    async fn write_data(&mut self, api: &Api) -> Option<()> {
        let index = self.rng.random_range(0..DATA_TYPES);
        self.data[index].1 = self.count;
        let body = json!({ "value": self.count });
        self.answered(api, Method::PUT, &self.data_path(index), &body).await?;
        self.data[index].0 = self.count;
        Some(())
    }

    async fn send_letter(&mut self, api: &Api) -> Option<()> {
        let nonce = format!("{}-{}", self.account.user_id, self.count);
        let path = format!("/sendToDevice/org.sabha.crash/{}", self.count);
        let body = json!({ "messages": { &self.neighbour.user_id: { &self.neighbour.device_id: { "body": nonce } } } });
        self.unanswered_letter = Some((path.clone(), body.clone(), nonce.clone()));
        self.answered(api, Method::PUT, &path, &body).await?;
        self.unanswered_letter = None;
        self.letters.push(nonce);
        Some(())
    }

    fn keys(&self, range: Range<u64>) -> Value {
        let keys: serde_json::Map<String, Value> = range
            .map(|number| {
                let signatures = json!({ &self.account.user_id: { "ed25519:X": format!("signature{number}") } });
                let key = json!({ "key": format!("{}{number:020}", self.account.device_id), "signatures": signatures });
                (format!("signed_curve25519:{number:020}"), key)
            })
            .collect();
        json!({ "one_time_keys": keys })
    }

    async fn upload_keys(&mut self, api: &Api) -> Option<()> {
        let range = self.uploaded..self.uploaded + KEYS_AT_ONCE;
        self.unanswered_upload = Some(range.clone());
        self.answered(api, Method::POST, "/keys/upload", &self.keys(range.clone())).await?;
        self.unanswered_upload = None;
        self.uploaded = range.end;
        Some(())
    }

    async fn claim_key(&mut self, api: &Api) -> Option<()> {
        let Account { user_id, device_id, .. } = &*self.neighbour;
        let body = json!({ "one_time_keys": { user_id: { device_id: "signed_curve25519" } } });
        self.unanswered_claims += 1;
        let answer = self.answered(api, Method::POST, "/keys/claim", &body).await?;
        self.unanswered_claims -= 1;
        if let Some(keys) = answer["one_time_keys"][user_id][device_id].as_object() {
            let id = keys.keys().next().expect("a device that is named has a key");
            let number = id.strip_prefix("signed_curve25519:").and_then(|number| number.parse().ok());
            let number: u64 = number.unwrap_or_else(|| panic!("{id} is no key of ours"));
            if let Some(last) = self.claimed.last() {
                assert!(*last < number, "key {number} was handed out after {last}");
            }
            assert!(text(&keys[id], "key").ends_with(&format!("{number:020}")), "{id} has another key's content");
            self.claimed.push(number);
        }
        drop(answer);
        Some(())
    }

    async fn answered(&self, api: &Api, method: Method, path: &str, body: &Value) -> Option<Value> {
        match api.ask(method, path, &self.account.token, Some(body)).await {
            Outcome::Answered(answer) => Some(answer),
            Outcome::Lost => None,
        }
    }

    /// Checks the number of keys that are left, where only `claimer` claims them. A claim without an answer may have
    /// used up a key.
    pub async fn count_keys(&self, api: &Api, claimer: &Self) {
        let answer = api.post("/keys/upload", &self.account.token, &json!({})).await;
        let left = answer["one_time_key_counts"]["signed_curve25519"].as_u64().unwrap_or(0);
        let claimed = claimer.claimed.len() as u64;
        let lost = (self.uploaded - claimed).checked_sub(left).expect("there are no more keys than were uploaded");
        let unanswered = claimer.unanswered_claims;
        assert!(lost <= unanswered, "{lost} keys are lost, with {unanswered} unanswered claims");
    }
}

impl Lane for DataLane {
    async fn run(&mut self, api: &Api) {
        loop {
            self.count += 1;
            let done = match self.rng.random_range(0..8) {
                0 | 1 => self.write_data(api).await,
                2 | 3 => self.send_letter(api).await,
                4 | 5 if self.uploaded < self.count / 2 + KEYS_WANTED => self.upload_keys(api).await,
                _ => self.claim_key(api).await,
            };
            if done.is_none() {
                return;
            }
        }
    }

    /// Checks account data, and repeats requests without an answer.
    async fn settle(&mut self, api: &Api) {
        for index in 0..DATA_TYPES {
            let (answered, asked) = self.data[index];
            let stored = api.find(&self.data_path(index), &self.account.token).await;
            let stored = stored.map_or(0, |data| data["value"].as_u64().expect("it was a number"));
            assert!(stored == answered || stored == asked, "account data is {stored}, not {answered} or {asked}");
            self.data[index] = (stored, stored);
        }
        if let Some((path, body, nonce)) = self.unanswered_letter.take() {
            api.put(&path, &self.account.token, &body).await;
            self.letters.push(nonce);
        }
        if let Some(range) = self.unanswered_upload.take() {
            api.post("/keys/upload", &self.account.token, &self.keys(range.clone())).await;
            self.uploaded = range.end;
        }
    }
}
