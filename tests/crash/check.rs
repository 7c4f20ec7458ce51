//! A client that syncs: through kills, from its last token, without loss or repetition.

use std::{collections::BTreeMap, sync::Arc};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    api::{Api, Outcome, segment, text},
    lanes::Lane,
    world::{Account, Room, Seen, World},
};

/// A small limit, so that some timelines are limited and their gaps must be filled.
const TIMELINE_LIMIT: usize = 3;

pub struct SyncLane {
    account: Arc<Account>,
    filter: String,
    since: String,
    /// For each room: the number of events at the last check, and the events received since.
    timelines: BTreeMap<String, (usize, Vec<Seen>)>,
    /// Messages that the device received.
    pub letters: Vec<String>,
}

impl SyncLane {
    /// Starts with an initial sync.
    pub async fn start(api: &Api, world: &World, account: &Arc<Account>) -> Self {
        let filter = json!({
            "presence": { "types": [] },
            "room": { "rooms": world.room_ids(), "timeline": { "limit": TIMELINE_LIMIT } },
        });
        let filter = segment(&filter.to_string());
        let first = api.get(&format!("/sync?filter={filter}"), &account.token).await;
        let timelines =
            world.rooms.iter().map(|room| (room.room_id.clone(), (room.timeline.len(), Vec::new()))).collect();
        let since = text(&first, "next_batch").to_owned();
        Self { account: Arc::clone(account), filter, since, timelines, letters: Vec::new() }
    }

    fn path(&self, timeout_ms: u32) -> String {
        format!("/sync?since={}&timeout={timeout_ms}&filter={}", segment(&self.since), self.filter)
    }

    /// Applies an answer, with its gaps already `filled`.
    fn apply(&mut self, answer: &Value, mut filled: BTreeMap<String, Vec<Seen>>) {
        for (room_id, room) in joined(answer) {
            let (_, timeline) = self.timelines.get_mut(room_id).expect("the filter names our rooms only");
            timeline.extend(filled.remove(room_id).unwrap_or_default());
            timeline.extend(events(&room["timeline"]).iter().map(Seen::new));
        }
        for letter in events(&answer["to_device"]) {
            self.letters.push(text(&letter["content"], "body").to_owned());
        }
        self.since = text(answer, "next_batch").to_owned();
    }

    /// Returns each gap in the answer as its room and its end.
    fn gaps(answer: &Value) -> Vec<(String, String)> {
        let limited = joined(answer).filter(|(_, room)| room["timeline"]["limited"] == true);
        limited.map(|(id, room)| (id.clone(), text(&room["timeline"], "prev_batch").to_owned())).collect()
    }

    /// Syncs until there is no news, and compares the received events with the rooms. Returns the number of gaps.
    pub async fn catch_up(&mut self, api: &Api, rooms: &[Room]) -> usize {
        let mut gap_count = 0;
        loop {
            let answer = api.get(&self.path(0), &self.account.token).await;
            let mut filled = BTreeMap::new();
            for (room_id, to) in Self::gaps(&answer) {
                let room = rooms.iter().find(|room| room.room_id == room_id).expect("it is one of ours");
                let (before, timeline) = &self.timelines[&room_id];
                let last = timeline.last().unwrap_or_else(|| &room.timeline[*before - 1]).event_id.clone();
                let events = crate::world::read_back(api, &self.account.token, &room_id, Some(&to), Some(&last)).await;
                filled.insert(room_id, events);
                gap_count += 1;
            }
            let is_quiet = joined(&answer).all(|(_, room)| events(&room["timeline"]).is_empty())
                && events(&answer["to_device"]).is_empty();
            self.apply(&answer, filled);
            if is_quiet {
                break;
            }
        }
        for room in rooms {
            let (before, received) = self.timelines.get_mut(&room.room_id).expect("it is one of ours");
            let there = &room.timeline[*before..];
            if let Some(index) = (0..there.len().max(received.len())).find(|i| there.get(*i) != received.get(*i)) {
                let (there, received) = (there.get(index), received.get(index));
                panic!("{} received {received:?} as event {index}, not {there:?}", self.account.user_id);
            }
            (*before, *received) = (room.timeline.len(), Vec::new());
        }
        gap_count
    }
}

impl Lane for SyncLane {
    async fn run(&mut self, api: &Api) {
        loop {
            match api.ask(Method::GET, &self.path(10_000), &self.account.token, None).await {
                // A gap is filled only after the kill: the answer is dropped, and its token not used.
                Outcome::Answered(answer) if Self::gaps(&answer).is_empty() => self.apply(&answer, BTreeMap::new()),
                Outcome::Answered(_) | Outcome::Lost => return,
            }
        }
    }

    /// Does nothing, because the check needs the rooms: see [`Self::catch_up`].
    async fn settle(&mut self, _: &Api) {}
}

fn joined(answer: &Value) -> impl Iterator<Item = (&String, &Value)> {
    answer["rooms"]["join"].as_object().into_iter().flatten()
}

fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}
