//! The lane of rooms: creates some, and joins and leaves one.

use std::{collections::BTreeSet, sync::Arc};

use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    api::{Api, Outcome, segment, text},
    lanes::Lane,
    process::SERVER_NAME,
    world::{Account, World},
};

/// Rooms that a lane creates between two kills, so that the checks stay quick.
const CREATIONS: usize = 2;

pub struct ChurnLane {
    account: Arc<Account>,
    invited: Arc<Account>,
    rng: StdRng,
    count: u64,
    /// Rooms that the account never leaves.
    steady: BTreeSet<String>,
    churn_room: String,
    is_joined: bool,
    /// True if the last join or leave got no answer.
    unanswered_join: bool,
    /// Names of the rooms since the last check, with the answered room ID.
    created: Vec<(String, Option<String>)>,
    /// Number of rooms that were found complete.
    pub whole: usize,
}

impl ChurnLane {
    pub fn new(world: &World, index: usize, rng: StdRng) -> Self {
        let invited = &world.accounts[(index + 1) % world.accounts.len()];
        Self {
            account: Arc::clone(&world.accounts[index]),
            invited: Arc::clone(invited),
            rng,
            count: 0,
            steady: world.room_ids().into_iter().collect(),
            churn_room: world.churn_room.clone(),
            // The creator of the room is in it.
            is_joined: index == 0,
            unanswered_join: false,
            created: Vec::new(),
            whole: 0,
        }
    }

    async fn create(&mut self, api: &Api) -> Outcome {
        let name = format!("{}-{}", &self.account.device_id.to_lowercase(), self.count);
        let body = json!({
            "preset": "private_chat", "name": name, "topic": name, "room_alias_name": name,
            "invite": [self.invited.user_id],
            "initial_state": [{ "type": "org.sabha.crash", "state_key": "", "content": { "name": name } }],
        });
        self.created.push((name, None));
        let outcome = api.ask(Method::POST, "/createRoom", &self.account.token, Some(&body)).await;
        if let (Outcome::Answered(answer), Some((_, room_id))) = (&outcome, self.created.last_mut()) {
            *room_id = Some(text(answer, "room_id").to_owned());
        }
        outcome
    }

    async fn join_or_leave(&mut self, api: &Api) -> Outcome {
        let verb = if self.is_joined { "leave" } else { "join" };
        let path = format!("/rooms/{}/{verb}", segment(&self.churn_room));
        self.unanswered_join = true;
        let outcome = api.ask(Method::POST, &path, &self.account.token, Some(&json!({}))).await;
        if matches!(outcome, Outcome::Answered(_)) {
            self.is_joined = !self.is_joined;
            self.unanswered_join = false;
        }
        outcome
    }

    async fn check_whole(&self, api: &Api, room_id: &str, name: &str) {
        let room = segment(room_id);
        let state = api.get(&format!("/rooms/{room}/state"), &self.account.token).await;
        let timeline = api.get(&format!("/rooms/{room}/messages?dir=f&limit=100"), &self.account.token).await;
        let keys = |events: &Value| -> BTreeSet<(String, String)> {
            let events = events.as_array().expect("a list of events");
            let keys = events.iter().map(|event| (text(event, "type").to_owned(), text(event, "state_key").to_owned()));
            keys.collect()
        };
        let members = [&self.account.user_id, &self.invited.user_id].map(|user| ("m.room.member", user.as_str()));
        let others = [
            "m.room.create",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
            "org.sabha.crash",
            "m.room.name",
            "m.room.topic",
        ];
        let wanted = members.into_iter().chain(others.map(|event_type| (event_type, "")));
        let wanted: BTreeSet<_> = wanted.map(|(event_type, key)| (event_type.to_owned(), key.to_owned())).collect();
        assert_eq!(keys(&state), wanted, "the state of {room_id} ({name})");
        assert_eq!(keys(&timeline["chunk"]), wanted, "the timeline of {room_id} ({name})");
        assert_eq!(timeline["chunk"].as_array().map(Vec::len), Some(wanted.len()), "{room_id} has an event twice");
    }
}

impl Lane for ChurnLane {
    async fn run(&mut self, api: &Api) {
        loop {
            self.count += 1;
            let create = self.created.len() < CREATIONS && self.rng.random_ratio(1, 4);
            let outcome = if create { self.create(api).await } else { self.join_or_leave(api).await };
            if matches!(outcome, Outcome::Lost) {
                return;
            }
        }
    }

    /// Compares the account's rooms with the answers.
    async fn settle(&mut self, api: &Api) {
        let answer = api.get("/joined_rooms", &self.account.token).await;
        let joined = answer["joined_rooms"].as_array().expect("a list");
        let mut joined: BTreeSet<String> = joined.iter().filter_map(|room| room.as_str().map(str::to_owned)).collect();
        for room_id in &self.steady {
            assert!(joined.remove(room_id), "{} is not in {room_id} any more", self.account.user_id);
        }
        let is_joined = joined.remove(&self.churn_room);
        assert!(is_joined == self.is_joined || self.unanswered_join, "an answered join or leave is lost");
        (self.is_joined, self.unanswered_join) = (is_joined, false);

        for (name, room_id) in std::mem::take(&mut self.created) {
            let alias = format!("/directory/room/{}", segment(&format!("#{name}:{SERVER_NAME}")));
            let aliased = api.find(&alias, &self.account.token).await.map(|found| text(&found, "room_id").to_owned());
            // A room without an answer is found by its alias, or does not exist.
            let Some(room_id) = room_id.or_else(|| aliased.clone()) else {
                continue;
            };
            assert_eq!(aliased.as_ref(), Some(&room_id), "the alias of a room belongs to its creation");
            assert!(joined.remove(&room_id), "{room_id} ({name}) exists without its creator");
            self.check_whole(api, &room_id, &name).await;
            api.post(&format!("/rooms/{}/leave", segment(&room_id)), &self.account.token, &json!({})).await;
            self.whole += 1;
        }
        assert!(joined.is_empty(), "half-made rooms: {joined:?}");
    }
}
