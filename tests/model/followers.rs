//! The followers: clients that only sync, each in its own way, and remember the answers.
//!
//! Some answers are lost, some requests are cut off, some are sent twice. The follower continues from the token of the
//! last answer that it took, and must end up with the same knowledge as all others.

pub mod known;
pub mod ways;

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::sync::watch;

use self::known::{events, object};
pub use self::{known::Known, ways::Kind};
use crate::{
    api::{Api, Device, Request},
    clients::Scene,
    delays::yields,
    plan::Cut,
};

/// Far longer than a run: a long poll ends with news, or not at all.
const LONG_POLL: &str = "timeout=30000";

/// Number of syncs after the last write. A client that still gets news then never comes to rest.
const MAX_LAST_SYNCS: usize = 20;

/// Time limit for an answer that must already be on its way.
const WAKE_LIMIT: Duration = Duration::from_secs(10);

/// Largest number of syncs during the writes, so that a client that does not wait lets others work.
const MAX_SYNCS: usize = 30;

pub struct Follower {
    pub scene: Arc<Scene>,
    pub user: usize,
    pub device: Device,
    pub kind: Kind,
    pub rng: StdRng,
    pub known: Known,
}

impl Follower {
    pub fn new(scene: &Arc<Scene>, user: usize, device: Device, kind: Kind, seed: u64) -> Self {
        let known = Known::new(device.user_id.clone(), kind.clone());
        Self { scene: Arc::clone(scene), user, device, kind, rng: StdRng::seed_from_u64(seed), known }
    }

    /// Returns the follower's name for fault reports.
    pub fn name(&self) -> String {
        format!("{} ({:?})", self.device.user_id, self.kind)
    }

    /// Follows until no writer is left and there is no more news.
    pub async fn run(mut self) -> Self {
        self.take_one("timeout=0").await;
        let mut progress = self.scene.world.progress();
        for _ in 0..MAX_SYNCS {
            if *progress.borrow() == u64::MAX {
                break;
            }
            if self.kind.waits {
                self.long_poll(&mut progress).await;
            } else {
                // Syncs after up to three acts of others; two syncs may follow each other directly.
                let until = progress.borrow().saturating_add(self.rng.random_range(0..4));
                reached(&mut progress, until).await;
                self.sync_somehow("timeout=0").await;
            }
        }
        reached(&mut progress, u64::MAX).await;
        self.settle().await;
        self
    }

    /// Waits for news, until no writer is left.
    async fn long_poll(&mut self, progress: &mut watch::Receiver<u64>) {
        if self.rng.random_ratio(1, 3) {
            self.sync_somehow(LONG_POLL).await;
            return;
        }
        let (api, token, request) = (self.scene.api.clone(), self.device.token.clone(), self.request(LONG_POLL));
        let parked = ask(&api, &token, &request);
        tokio::pin!(parked);
        tokio::select! {
            biased;
            answer = &mut parked => return self.take(answer).await,
            () = reached(progress, u64::MAX) => {}
        }
        // All writes are done. If there is news, the waiting request must have been woken, or it would wait in vain.
        // Both requests run side by side, because the waiting one may be at work already and hold something that the
        // other needs.
        let peek = self.request("timeout=0&set_presence=offline");
        let peek = ask(&api, &token, &peek);
        tokio::pin!(peek);
        let peeked = tokio::select! {
            biased;
            answer = &mut parked => return self.take(answer).await,
            peeked = &mut peek => peeked,
        };
        // The waiting request may be in another process, which does not know who types here. All other news is stored.
        let with_typing = !api.doors.are_shared().await;
        if !has_news(&peeked, with_typing) {
            return;
        }
        match tokio::time::timeout(WAKE_LIMIT, &mut parked).await {
            Ok(answer) => self.take(answer).await,
            Err(_) => {
                let (since, news) = (&self.known.since, shortened(&peeked));
                let text = format!("{} waits since {since:?}, and there is news: {news}", self.name());
                self.scene.world.fault("a long poll was not woken", text);
            }
        }
    }

    /// Syncs, and takes the answer or loses it.
    async fn sync_somehow(&mut self, parameters: &str) {
        // A waiting request can only be cut off, because the time of its answer is unknown.
        let parameters = if self.rng.random_ratio(1, 8) && self.known.since.is_some() {
            "timeout=0&full_state=true"
        } else {
            parameters
        };
        let request = self.request(parameters);
        let (api, token) = (self.scene.api.clone(), self.device.token.clone());
        match self.rng.random_range(0..10) {
            0 => {
                let cut = Cut::random(&mut self.rng);
                api.ask_and_hang_up(&token, &request, cut).await;
            }
            1 if parameters != LONG_POLL => _ = api.ask(&token, &request).await,
            2 if parameters != LONG_POLL => {
                let (first, second) = tokio::join!(ask(&api, &token, &request), ask(&api, &token, &request));
                let answer = if self.rng.random() { first } else { second };
                self.take(answer).await;
            }
            _ if parameters == LONG_POLL => {
                let cut = Cut { after_yields: self.rng.random_range(0..400), sent: 100 };
                if let Some(answer) = api.ask_and_hang_up(&token, &request, cut).await {
                    self.take(answer.json).await;
                }
            }
            _ => {
                yields(self.rng.random_range(0..10)).await;
                let answer = ask(&api, &token, &request).await;
                self.take(answer).await;
            }
        }
    }

    /// Syncs until there is no more news.
    pub async fn settle(&mut self) {
        for _ in 0..MAX_LAST_SYNCS {
            if !self.take_one("timeout=0").await {
                return;
            }
        }
        self.scene
            .world
            .fault("a sync never comes to rest", format!("{}: {MAX_LAST_SYNCS} syncs with news", self.name()));
    }

    /// Syncs once, and returns whether there was news.
    async fn take_one(&mut self, parameters: &str) -> bool {
        let answer = ask(&self.scene.api, &self.device.token, &self.request(parameters)).await;
        let news = has_news(&answer, true);
        self.take(answer).await;
        news
    }

    async fn take(&mut self, answer: Value) {
        if answer["next_batch"].as_str().is_none() {
            // The request failed, which is a fault already.
            return;
        }
        self.scene.world.took_an_answer();
        let got = self.scene.world.tick();
        for (kind, text) in self.known.take(&answer, got) {
            self.scene.world.fault(kind, format!("{}: {text}", self.name()));
        }
        for (room_id, from) in self.known.gaps() {
            let found = self.read_back(&room_id, &from).await;
            self.known.fill(&room_id, found);
        }
    }

    /// Returns the events before a gap's end, newest first, up to a known one. `None` if the room may not be read any
    /// more.
    async fn read_back(&self, room_id: &str, from: &str) -> Option<Vec<String>> {
        let mut found = Vec::new();
        let mut from = from.to_owned();
        loop {
            let request = Request::get(self.kind.messages_path(room_id, &from));
            let answer = self.scene.api.ask(&self.device.token, &request).await;
            if answer.status != 200 {
                return None;
            }
            for event in answer.json["chunk"].as_array().into_iter().flatten() {
                let event_id = event["event_id"].as_str().unwrap_or_default().to_owned();
                if self.known.knows(room_id, &event_id) {
                    return Some(found);
                }
                found.push(event_id);
            }
            match answer.json["end"].as_str() {
                Some(end) => from = end.to_owned(),
                None => return Some(found),
            }
        }
    }

    fn request(&self, parameters: &str) -> Request {
        Request::get(self.kind.sync_path(self.known.since.as_deref(), parameters))
    }
}

async fn ask(api: &Api, token: &str, request: &Request) -> Value {
    api.ask(token, request).await.json
}

/// Waits until this many acts have ended.
async fn reached(progress: &mut watch::Receiver<u64>, count: u64) {
    let _ = progress.wait_for(|now| *now >= count).await;
}

/// Tells whether an answer contains more than presence and numbers. Without typing, those who type in a room are no news
/// either.
fn has_news(answer: &Value, with_typing: bool) -> bool {
    let has = |part: &str| answer.get(part).is_some();
    let has_rooms = if with_typing { has("rooms") } else { tells_more_than_typing(&answer["rooms"]) };
    has_rooms || ["to_device", "account_data", "device_lists"].into_iter().any(has)
}

fn tells_more_than_typing(rooms: &Value) -> bool {
    let tells = |room: &Value, part: &str| events(&room[part]).iter().any(|event| event["type"] != "m.typing");
    let parts = ["timeline", "state", "state_after", "account_data", "ephemeral"];
    object(rooms).any(|(section, rooms)| {
        object(rooms).any(|(_, room)| section != "join" || parts.iter().any(|part| tells(room, part)))
    })
}

/// Shortens an answer for a fault report.
pub fn shortened(answer: &Value) -> String {
    const LENGTH: usize = 600;
    let text = answer.to_string();
    text.chars().take(LENGTH).collect()
}
