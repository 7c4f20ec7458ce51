//! The steps of a commit as a client sees them: every piece of news arrives once, whatever happens in between.
//!
//! The committer waits at each of its steps until the test lets it continue. So a sync ends between every two steps,
//! and none of these moments is left to chance.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use sabha::{app::App, store::committer::CommitStep};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::harness::{Client, TestServer, v3};

/// The committer's steps, each with a sender that lets the committer continue.
struct Steps {
    armed: Arc<AtomicBool>,
    reached: mpsc::UnboundedReceiver<(CommitStep, oneshot::Sender<()>)>,
}

impl Steps {
    fn of(app: &App) -> Self {
        let armed = Arc::new(AtomicBool::new(false));
        let (sender, reached) = mpsc::unbounded_channel();
        let waits = Arc::clone(&armed);
        app.db.committer().on_step(Arc::new(move |step| {
            let (sender, waits) = (sender.clone(), waits.load(Ordering::Acquire));
            Box::pin(async move {
                let (go_on, gone_on) = oneshot::channel();
                if waits && sender.send((step, go_on)).is_ok() {
                    // An error means that the test is over.
                    let _ = gone_on.await;
                }
            })
        }));
        Self { armed, reached }
    }

    /// Runs `action`, and calls `between` at each step of its commits.
    async fn during(
        &mut self,
        action: impl Future<Output = ()> + Send + 'static,
        mut between: impl AsyncFnMut(CommitStep),
    ) {
        self.armed.store(true, Ordering::Release);
        let mut action = tokio::spawn(action);
        let mut done = false;
        loop {
            tokio::select! {
                biased;
                reached = self.reached.recv() => {
                    let (step, go_on) = reached.expect("the committer holds the sender");
                    between(step).await;
                    let _: Result<(), ()> = go_on.send(());
                    if step == CommitStep::Answered && done {
                        break;
                    }
                }
                ended = &mut action, if !done => {
                    ended.expect("the action succeeds");
                    done = true;
                    if self.reached.is_empty() {
                        break;
                    }
                }
            }
        }
        self.armed.store(false, Ordering::Release);
        while let Ok((_, go_on)) = self.reached.try_recv() {
            let _: Result<(), ()> = go_on.send(());
        }
    }
}

/// A change that Bob is told about.
#[derive(Debug, Clone, Copy)]
enum News {
    Message,
    Invite,
    Join,
    DeviceName,
    AccountData,
    RoomAccountData,
    Receipt,
    ToDevice,
}

const ALL: [News; 8] = [
    News::Message,
    News::Invite,
    News::Join,
    News::DeviceName,
    News::AccountData,
    News::RoomAccountData,
    News::Receipt,
    News::ToDevice,
];

/// Alice, Bob, and their rooms.
#[derive(Clone)]
struct World {
    alice: Client,
    bob: Client,
    shared: String,
    open: String,
    read: String,
}

impl World {
    /// Registers Alice and Bob with a common room, another one for Bob to join, and a third of Alice's.
    async fn new(server: &TestServer, news: News) -> Self {
        let name = |who: &str| format!("{who}-{}", format!("{news:?}").to_lowercase());
        let (alice, bob) = (server.register(&name("alice")).await, server.register(&name("bob")).await);
        let shared = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&shared).await;
        let open = alice.create_room(json!({ "preset": "public_chat" })).await;
        let read = alice.send_text(&shared, "first", "hello").await;
        Self { alice, bob, shared, open, read }
    }

    async fn happens(self, news: News) {
        let Self { alice, bob, shared, open, read } = self;
        match news {
            News::Message => _ = alice.send_text(&shared, "second", "the news").await,
            News::Invite => alice.invite(&open, &bob.user_id).await,
            News::Join => bob.join(&open).await,
            News::DeviceName => {
                let path = v3(["devices", &alice.device_id]);
                alice.put(&path, json!({ "display_name": "another" })).await.ok();
            }
            News::AccountData => {
                bob.put(&v3(["user", &bob.user_id, "account_data", "the.news"]), json!({})).await.ok();
            }
            News::RoomAccountData => {
                let path = v3(["user", &bob.user_id, "rooms", &shared, "account_data", "the.news"]);
                bob.put(&path, json!({})).await.ok();
            }
            News::Receipt => {
                alice.post(&v3(["rooms", &shared, "receipt", "m.read", &read]), json!({})).await.ok();
            }
            News::ToDevice => {
                let messages = json!({ "messages": { &bob.user_id: { &bob.device_id: { "a": 1 } } } });
                alice.put(&v3(["sendToDevice", "the.news", "txn"]), messages).await.ok();
            }
        }
    }

    /// Counts how often an answer to Bob's sync tells the news.
    fn told(&self, news: News, answer: &Value) -> usize {
        let events = |list: &Value, matches: &dyn Fn(&Value) -> bool| {
            list["events"].as_array().into_iter().flatten().filter(|event| matches(event)).count()
        };
        let of_type = |name: &'static str| move |event: &Value| event["type"] == name;
        let joined = &answer["rooms"]["join"][&self.shared];
        match news {
            News::Message => events(&joined["timeline"], &|event| event["content"]["body"] == "the news"),
            News::Invite => usize::from(answer["rooms"]["invite"][&self.open].is_object()),
            News::Join => usize::from(answer["rooms"]["join"][&self.open].is_object()),
            News::DeviceName => {
                let changed = answer["device_lists"]["changed"].as_array();
                changed.into_iter().flatten().filter(|user| **user == *self.alice.user_id).count()
            }
            News::AccountData => events(&answer["account_data"], &of_type("the.news")),
            News::RoomAccountData => events(&joined["account_data"], &of_type("the.news")),
            News::Receipt => events(&joined["ephemeral"], &of_type("m.receipt")),
            News::ToDevice => events(&answer["to_device"], &of_type("the.news")),
        }
    }
}

fn next_batch(answer: &Value) -> String {
    answer["next_batch"].as_str().expect("checked").to_owned()
}

both_engines! {
    async fn a_sync_that_ends_between_two_steps_of_a_commit_skips_nothing(server: TestServer) {
        let mut steps = Steps::of(server.app());
        for news in ALL {
            let world = World::new(&server, news).await;
            let mut since = next_batch(&world.bob.sync(None).await);
            let (mut told, mut seen) = (0, Vec::new());
            steps.during(world.clone().happens(news), async |step| {
                seen.push(step);
                // After the news came, it does not sync again here: the acknowledgement may need a commit, and this one
                // is waiting.
                if told == 0 {
                    let answer = world.bob.sync(Some(&since)).await;
                    told += world.told(news, &answer);
                    since = next_batch(&answer);
                }
            }).await;
            assert!(seen.starts_with(&[CommitStep::Taken, CommitStep::Stored, CommitStep::Remembered]), "{seen:?}");
            told += world.told(news, &world.bob.sync(Some(&since)).await);
            assert_eq!(told, 1, "{news:?}");
        }
    }

    async fn who_comes_back_between_two_steps_of_a_commit_skips_nothing(server: TestServer) {
        let mut steps = Steps::of(server.app());
        for news in ALL {
            let world = World::new(&server, news).await;
            let mut since = next_batch(&world.bob.sync(None).await);
            let mut told = 0;
            steps.during(world.clone().happens(news), async |_| {
                if told == 0 {
                    // Makes the server forget who watches which rooms, and the memberships in memory.
                    server.app().bus.forget_idle(i64::MAX);
                    server.app().rooms.forget_idle();
                    let answer = world.bob.sync(Some(&since)).await;
                    told += world.told(news, &answer);
                    since = next_batch(&answer);
                }
            }).await;
            told += world.told(news, &world.bob.sync(Some(&since)).await);
            assert_eq!(told, 1, "{news:?}");
        }
    }

    async fn a_sync_that_begins_to_wait_between_two_steps_of_a_commit_is_woken(server: TestServer) {
        let mut steps = Steps::of(server.app());
        for news in ALL {
            let world = World::new(&server, news).await;
            let since = next_batch(&world.bob.sync(None).await);
            let mut parked = Vec::new();
            steps.during(world.clone().happens(news), async |_| {
                let (bob, since) = (world.bob.clone(), since.clone());
                parked.push(tokio::spawn(async move { bob.sync_with(Some(&since), "timeout=60000").await }));
                // The sync runs as far as it can without the committer.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }).await;
            for parked in parked {
                let answer = parked.await.expect("it is answered");
                assert_eq!(world.told(news, &answer), 1, "{news:?}: {answer}");
            }
        }
    }

    async fn an_answer_without_news_repeats_the_token_of_the_client(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let since = next_batch(&bob.sync(None).await);
        let since = next_batch(&bob.sync(Some(&since)).await);
        // None of this concerns Bob.
        let room = alice.create_room(json!({})).await;
        for n in 0..10 {
            alice.send_text(&room, &format!("txn{n}"), "hello").await;
        }
        assert_eq!(next_batch(&bob.sync(Some(&since)).await), since);
        alice.invite(&room, &bob.user_id).await;
        let answer = bob.sync(Some(&since)).await;
        assert!(answer["rooms"]["invite"][&room].is_object(), "{answer}");
        assert_ne!(next_batch(&answer), since);
    }
}
