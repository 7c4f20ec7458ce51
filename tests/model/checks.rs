//! The checks at the end of a run, when no client has news left to fetch.
//!
//! [`acts`] looks for acknowledged events; [`rooms`] compares the events that users can read with the true history;
//! [`clients`] compares the knowledge of followers with the server's data; [`counts`] counts unread messages again;
//! [`log`] compares the commit log with the tables.

mod acts;
mod clients;
mod counts;
pub mod log;
mod registers;
mod rooms;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    api::{Request, v3},
    clients::Scene,
    followers::{
        Follower,
        known::{events, object, read_receipts, text},
    },
    plan::{USERS, WITNESS},
    truth::TrueRoom,
    world::Act,
};

/// The end of a run: all acts, the history of the rooms, and an initial sync of each user.
pub struct End {
    pub scene: Arc<Scene>,
    pub acts: Vec<Act>,
    pub rooms: Vec<TrueRoom>,
    /// The answer to an initial sync of each user.
    pub fresh: Vec<Value>,
}

impl End {
    pub async fn read(scene: &Arc<Scene>) -> Self {
        let api = &scene.api;
        let mut rooms = Vec::new();
        for room_id in &scene.room_ids {
            rooms.push(TrueRoom::read(api, &scene.devices[WITNESS].token, room_id).await);
        }
        let mut fresh = Vec::new();
        for device in &scene.devices {
            let path = format!("{}?timeout=0&set_presence=offline", v3(["sync"]));
            fresh.push(api.need(&device.token, &Request::get(path)).await);
        }
        Self { scene: Arc::clone(scene), acts: scene.world.acts(), rooms, fresh }
    }

    pub fn fault(&self, kind: &'static str, text: impl Into<String>) {
        self.scene.world.fault(kind, text);
    }

    /// Returns a room in the initial sync of a user; `null` if they are not in it.
    pub fn fresh_room(&self, user: usize, room_id: &str) -> &Value {
        &self.fresh[user]["rooms"]["join"][room_id]
    }

    pub fn is_joined(&self, user: usize, room: usize) -> bool {
        self.rooms[room].membership(&self.scene.user_ids[user]) == "join"
    }

    /// Tells whether two users share a room, or are the same user.
    pub fn share_a_room(&self, one: usize, other: usize) -> bool {
        one == other || (0..self.rooms.len()).any(|room| self.is_joined(one, room) && self.is_joined(other, room))
    }
}

pub async fn run(end: &End, followers: &[Follower]) {
    acts::check(end);
    registers::check(end).await;
    for user in 0..USERS {
        rooms::check(end, user).await;
    }
    rooms::check_redactions(end);
    counts::check(end);
    for follower in followers {
        clients::check(end, follower);
    }
}

/// Returns the receipts of a room in an answer.
fn receipts_in(room: &Value) -> BTreeMap<String, String> {
    let mut receipts = BTreeMap::new();
    for event in events(&room["ephemeral"]).iter().filter(|event| event["type"] == "m.receipt") {
        read_receipts(&event["content"], &mut receipts);
    }
    receipts
}

/// Returns the account data in a part of an answer.
fn account_data_in(part: &Value) -> BTreeMap<String, Value> {
    events(&part["account_data"]).iter().map(|event| (text(event, "type"), event["content"].clone())).collect()
}

/// Returns the rooms in a section of an answer.
fn rooms_in(answer: &Value, section: &str) -> std::collections::BTreeSet<String> {
    object(&answer["rooms"][section]).map(|(room_id, _)| room_id.clone()).collect()
}
