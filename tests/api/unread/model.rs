//! Random sends, answers, threads, receipts, redactions, rules and ignored users, compared with a naive count.
//!
//! One client follows the room step by step, and loses some answers; another makes initial syncs. At the end the server
//! is restarted, so that it must count everything again.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{in_thread, mention, next, read, rule, scene, text, unread, unread_of_thread, v3, with_threads};
use crate::harness::{Client, TestServer};

const STEPS: usize = 120;
const THREADS: usize = 2;

/// Notifications and highlights, if an answer has them.
pub(super) type Badge = Option<(u64, u64)>;

/// A message in the model.
struct Message {
    event_id: String,
    by_alice: bool,
    thread: Option<usize>,
    has_cake: bool,
    mentions_alice: bool,
    redacted: bool,
}

/// Everything that the counts depend on.
#[derive(Default)]
pub(super) struct Model {
    messages: Vec<Message>,
    roots: Vec<String>,
    /// Numbers of messages up to which alice has read: everything, the main timeline, each thread.
    read_all: usize,
    read_main: usize,
    read_thread: [usize; THREADS],
    room_is_muted: bool,
    cake_is_loud: bool,
    bob_is_ignored: bool,
}

impl Model {
    /// Sends the roots of the threads, and so many texts that they are stored with the count.
    pub(super) async fn begin(bob: &Client, room: &str, texts: u64) -> Self {
        let mut model = Self::default();
        for number in 0..THREADS as u64 + texts {
            let event_id = bob.send_text(room, &format!("begin{number}"), "hello").await;
            if model.roots.len() < THREADS {
                model.roots.push(event_id.clone());
            }
            let (has_cake, mentions_alice) = (false, false);
            let message =
                Message { event_id, by_alice: false, thread: None, has_cake, mentions_alice, redacted: false };
            model.messages.push(message);
        }
        model
    }

    /// Counts notifications and highlights of the main timeline (`None`) or of a thread.
    fn count(&self, thread: Option<usize>) -> (u64, u64) {
        let read = self.read_all.max(thread.map_or(self.read_main, |thread| self.read_thread[thread]));
        let mut counts = (0, 0);
        for (index, message) in self.messages.iter().enumerate() {
            let answered = || {
                let mut later = self.messages[index + 1..].iter();
                later.any(|later| later.by_alice && !later.redacted && later.thread == thread)
            };
            let counts_at_all = message.thread == thread && !message.by_alice && !message.redacted && index >= read;
            if !counts_at_all || self.bob_is_ignored || answered() {
                continue;
            }
            let cake = self.cake_is_loud && message.has_cake;
            if message.mentions_alice || cake {
                counts = (counts.0 + 1, counts.1 + 1);
            } else if !self.room_is_muted {
                counts.0 += 1;
            }
        }
        counts
    }

    /// Returns the expected counts of the main timeline and of each thread; `None` for a thread without unread
    /// messages.
    pub(super) fn all(&self) -> (Badge, Vec<Badge>) {
        let threads = (0..THREADS).map(|thread| Some(self.count(Some(thread))).filter(|counts| counts.0 > 0)).collect();
        (Some(self.count(None)), threads)
    }

    pub(super) fn shown(&self, answer: &Value, room: &str) -> (Badge, Vec<Badge>) {
        let threads = self.roots.iter().map(|root| unread_of_thread(answer, room, root)).collect();
        (unread(answer, room), threads)
    }

    async fn send(&mut self, sender: &Client, alice: &Client, room: &str, rng: &mut StdRng) {
        let (has_cake, mentions_alice) = (rng.random_ratio(1, 3), rng.random_ratio(1, 4));
        let thread = rng.random_ratio(1, 2).then(|| rng.random_range(0..THREADS));
        let body = if has_cake { "there is cake" } else { "hello" };
        let mut content = if mentions_alice { mention(alice, body) } else { text(body) };
        if let Some(thread) = thread {
            content = in_thread(&self.roots[thread], content);
        }
        let event_id = sender.send(room, "m.room.message", &self.messages.len().to_string(), content).await;
        let by_alice = sender.user_id == alice.user_id;
        self.messages.push(Message { event_id, by_alice, thread, has_cake, mentions_alice, redacted: false });
    }

    pub(super) async fn act(&mut self, step: usize, alice: &Client, bob: &Client, room: &str, rng: &mut StdRng) {
        let some = rng.random_range(0..self.messages.len());
        let event_id = self.messages[some].event_id.clone();
        match rng.random_range(0..20) {
            0..=8 => self.send(bob, alice, room, rng).await,
            9 | 10 => self.send(alice, alice, room, rng).await,
            11..=14 => {
                let kind = if rng.random() { "m.read" } else { "m.read.private" };
                let upto = some + 1;
                match self.messages[some].thread {
                    _ if rng.random_ratio(1, 6) => {
                        read(alice, room, kind, &event_id, None).await;
                        self.read_all = self.read_all.max(upto);
                    }
                    None => {
                        read(alice, room, kind, &event_id, Some("main")).await;
                        self.read_main = self.read_main.max(upto);
                    }
                    Some(thread) => {
                        read(alice, room, kind, &event_id, Some(&self.roots[thread])).await;
                        self.read_thread[thread] = self.read_thread[thread].max(upto);
                    }
                }
            }
            15 | 16 if !self.roots.contains(&event_id) => {
                let who = if self.messages[some].by_alice { alice } else { bob };
                who.put(&v3(["rooms", room, "redact", &event_id, &format!("r{step}")]), json!({})).await.ok();
                self.messages[some].redacted = true;
            }
            17 => {
                self.room_is_muted = !self.room_is_muted;
                if self.room_is_muted {
                    rule(alice, "room", room, json!({ "actions": [] })).await;
                } else {
                    alice.delete(&v3(["pushrules", "global", "room", room]), json!({})).await.ok();
                }
            }
            18 => {
                self.cake_is_loud = !self.cake_is_loud;
                if self.cake_is_loud {
                    let actions = json!(["notify", { "set_tweak": "highlight" }]);
                    rule(alice, "content", "cake", json!({ "pattern": "cake", "actions": actions })).await;
                } else {
                    alice.delete(&v3(["pushrules", "global", "content", "cake"]), json!({})).await.ok();
                }
            }
            _ => {
                self.bob_is_ignored = !self.bob_is_ignored;
                let users = if self.bob_is_ignored { json!({ &bob.user_id: {} }) } else { json!({}) };
                let list = v3(["user", &alice.user_id, "account_data", "m.ignored_user_list"]);
                alice.put(&list, json!({ "ignored_users": users })).await.ok();
            }
        }
    }
}

/// Returns a generator with the seed of `SABHA_UNREAD_SEED`, or a new seed.
pub(super) fn rng() -> StdRng {
    let seed = std::env::var("SABHA_UNREAD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("SABHA_UNREAD_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

both_engines! {
    async fn a_badge_is_what_counting_everything_gives(server: TestServer) {
        let mut server = server;
        let mut rng = rng();
        let (alice, bob, room) = scene(&server).await;
        let mut model = Model::begin(&bob, &room, 0).await;
        let mut since: Option<String> = None;
        let mut known = None;
        for step in 0..STEPS {
            let rules = (model.room_is_muted, model.cake_is_loud, model.bob_is_ignored);
            model.act(step, &alice, &bob, &room, &mut rng).await;
            let rules_changed = rules != (model.room_is_muted, model.cake_is_loud, model.bob_is_ignored);
            if rng.random_ratio(1, 3) || rules_changed {
                let fresh = alice.sync_with(None, &with_threads()).await;
                assert_eq!(model.shown(&fresh, &room), model.all(), "asked anew after step {step}");
            }
            if rules_changed {
                // A change of rules is no news of a room: the client makes an initial sync, and continues from there.
                since = None;
            }
            if rng.random_ratio(1, 2) || since.is_none() {
                let answer = alice.sync_with(since.as_deref(), &with_threads()).await;
                if rng.random_ratio(1, 4) {
                    continue;
                }
                if unread(&answer, &room).is_some() {
                    known = Some(model.shown(&answer, &room));
                }
                since = next(&answer).map(str::to_owned);
                assert_eq!(known.as_ref(), Some(&model.all()), "followed to step {step}");
            }
        }
        server.restart().await;
        let fresh = alice.sync_with(None, &with_threads()).await;
        assert_eq!(model.shown(&fresh, &room), model.all(), "after a restart");
    }
}
