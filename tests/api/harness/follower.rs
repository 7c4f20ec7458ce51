//! A client that knows its rooms only from `/sync`.
//!
//! It applies answers as clients do: first the state, then the state events of the timeline in order; with
//! `state_after` only the state. [`Follower::compare`] can compare its knowledge with `/state` at any time.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{Client, v3};

/// The options with which a client syncs.
#[derive(Debug, Clone, Default)]
pub struct Way {
    pub state_after: bool,
    pub lazy: bool,
    pub timeline_limit: Option<u32>,
    /// Other fields of the timeline's filter.
    pub timeline: BTreeMap<&'static str, Value>,
    /// Types of state that the client wants; `None` for all.
    pub state_types: Option<Vec<&'static str>>,
}

impl Way {
    /// Returns random options, the strange ones as often as the usual ones.
    pub fn random(rng: &mut StdRng, senders: &[String]) -> Self {
        let pick = |rng: &mut StdRng, of: &[Value]| of[rng.random_range(0..of.len())].clone();
        let types = [
            json!(["m.room.message"]),
            json!(["m.room.m*"]),
            json!(["m.room.message", "m.room.topic", "org.*"]),
            json!([]),
        ];
        let not_types = [json!(["m.room.message"]), json!(["m.room.member"]), json!(["m.room.t*", "org.*"])];
        let mut timeline = BTreeMap::new();
        match rng.random_range(0..8) {
            0 | 1 => _ = timeline.insert("types", pick(rng, &types)),
            2 => _ = timeline.insert("not_types", pick(rng, &not_types)),
            3 => _ = timeline.insert("senders", json!([senders[rng.random_range(0..senders.len())]])),
            4 => _ = timeline.insert("not_senders", json!([senders[rng.random_range(0..senders.len())]])),
            5 => _ = timeline.insert("contains_url", json!(rng.random::<bool>())),
            _ => {}
        }
        Self {
            state_after: rng.random(),
            lazy: rng.random(),
            timeline_limit: [None, Some(1), Some(2), Some(4), Some(20), Some(100)][rng.random_range(0..6)],
            timeline,
            state_types: rng.random_ratio(1, 6).then(|| vec!["m.room.topic", "m.room.member", "m.room.encryption"]),
        }
    }

    fn filter(&self) -> Value {
        let mut timeline = json!(self.timeline);
        if let Some(limit) = self.timeline_limit {
            timeline["limit"] = json!(limit);
        }
        let mut state = json!({ "lazy_load_members": self.lazy });
        if let Some(types) = &self.state_types {
            state["types"] = json!(types);
        }
        json!({ "presence": { "types": [] }, "room": { "timeline": timeline, "state": state } })
    }

    /// Returns whether answers contain state of this type.
    pub fn tells(&self, event_type: &str) -> bool {
        self.state_types.as_ref().is_none_or(|types| types.contains(&event_type))
    }
}

/// The state of a room: event IDs by type and key.
pub type State = BTreeMap<(String, String), String>;

/// A client that follows `/sync`.
pub struct Follower {
    pub client: Client,
    pub way: Way,
    pub since: Option<String>,
    /// Known state of each room that it was told of.
    pub rooms: BTreeMap<String, State>,
    pub joined: BTreeSet<String>,
    /// Rooms that it was in and was told it has left.
    pub left: BTreeSet<String>,
    /// Rooms that its user has forgotten, on any device. Later answers tell only that they were left.
    pub forgotten: BTreeSet<String>,
}

impl Follower {
    pub fn new(client: Client, way: Way) -> Self {
        let (joined, left, forgotten) = Default::default();
        Self { client, way, since: None, rooms: BTreeMap::new(), joined, left, forgotten }
    }

    /// Returns the query parameters of its syncs.
    pub fn parameters(&self) -> String {
        let filter = v3([&self.way.filter().to_string()]);
        let filter = filter.rsplit('/').next().expect("one segment");
        format!("timeout=0&filter={filter}&use_state_after={}", self.way.state_after)
    }

    /// Syncs and ignores the answer, as if it was lost.
    pub async fn ask(&self) -> Value {
        self.client.sync_with(self.since.as_deref(), &self.parameters()).await
    }

    /// Syncs and applies the answer.
    pub async fn sync(&mut self) -> Value {
        let answer = self.ask().await;
        self.take(&answer);
        answer
    }

    /// Applies an answer.
    ///
    /// # Panics
    /// When the answer lacks data that a client needs to show it.
    pub fn take(&mut self, answer: &Value) {
        for (room_id, room) in rooms(answer, "join") {
            let known = self.rooms.entry(room_id.clone()).or_default();
            apply(known, room, self.way.state_after);
            self.left.remove(room_id);
            self.forgotten.remove(room_id);
            self.joined.insert(room_id.clone());
            if self.way.tells("m.room.member") {
                let senders = events(&room["timeline"]).iter().map(|event| text(event, "sender"));
                let heroes = room["summary"]["m.heroes"].as_array().into_iter().flatten();
                for user in senders.chain(heroes.map(|hero| hero.as_str().expect("a user ID").to_owned())) {
                    let key = ("m.room.member".to_owned(), user);
                    assert!(known.contains_key(&key), "{key:?} of {room_id} is unknown to {:?}: {answer:#}", self.way);
                }
            }
        }
        for (room_id, room) in rooms(answer, "leave") {
            let known = self.rooms.entry(room_id.clone()).or_default();
            apply(known, room, self.way.state_after);
            if self.joined.remove(room_id) || self.left.contains(room_id) {
                self.left.insert(room_id.clone());
            }
        }
        for (room_id, _) in rooms(answer, "invite").into_iter().chain(rooms(answer, "knock")) {
            self.joined.remove(room_id);
            self.left.remove(room_id);
        }
        self.since = Some(text(answer, "next_batch"));
    }

    /// Compares the known state with `/state`.
    ///
    /// # Panics
    /// When the two differ.
    pub async fn compare(&self) {
        for room_id in self.joined.iter().chain(self.left.difference(&self.forgotten)) {
            let answer = self.client.get(&v3(["rooms", room_id, "state"])).await;
            let Some(all) = answer.json.as_array().filter(|_| answer.status.is_success()) else {
                assert!(self.left.contains(room_id), "{room_id}: {}", answer.text);
                continue;
            };
            let is_open = |event: &Value| event["content"]["history_visibility"] == "world_readable";
            if self.left.contains(room_id) && all.iter().any(is_open) {
                // A reader of an open room sees its present state, not that of the time when they left.
                continue;
            }
            let known = &self.rooms[room_id];
            let (who, way) = (&self.client.user_id, &self.way);
            for event in all.iter().filter(|event| way.tells(&text(event, "type"))) {
                let key = (text(event, "type"), text(event, "state_key"));
                if self.left.contains(room_id) && key == ("m.room.member".to_owned(), who.clone()) {
                    // Users are told about their own membership after they left, such as the end of a ban.
                    continue;
                }
                match known.get(&key) {
                    Some(known) => assert_eq!(
                        *known,
                        text(event, "event_id"),
                        "{key:?} in {room_id} is outdated for {who} {way:?}: {event}"
                    ),
                    None => assert!(way.lazy && key.0 == "m.room.member", "{who} {way:?} lacks {key:?} of {room_id}"),
                }
            }
        }
    }
}

fn apply(known: &mut State, room: &Value, state_after: bool) {
    let state = events(if state_after { &room["state_after"] } else { &room["state"] });
    let timeline = if state_after { &[] } else { events(&room["timeline"]) };
    for event in state.iter().chain(timeline) {
        if let Some(key) = event["state_key"].as_str() {
            known.insert((text(event, "type"), key.to_owned()), text(event, "event_id"));
        }
    }
}

/// Lists the rooms of one section of an answer.
pub fn rooms<'a>(answer: &'a Value, section: &str) -> Vec<(&'a String, &'a Value)> {
    answer["rooms"][section].as_object().into_iter().flatten().collect()
}

/// Returns the events of a part of an answer.
pub fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Value, key: &str) -> String {
    json[key].as_str().unwrap_or_else(|| panic!("{key} is missing in {json}")).to_owned()
}
