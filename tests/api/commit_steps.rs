//! The steps of a commit as a client sees them: every piece of news arrives once, whatever happens in between.
//!
//! The committer waits at each of its steps until the test lets it continue. So a sync ends between every two steps,
//! and none of these moments is left to chance.

mod news;

use std::sync::Arc;

use sabha::store::committer::CommitStep;
use serde_json::{Value, json};

use self::news::{EPHEMERAL, STORED, World};
use crate::harness::{
    TestServer,
    steps::{Gate, Steps},
};

impl Steps {
    /// Runs `action`, and calls `between` at each step of its commits.
    pub async fn during(
        &mut self,
        action: impl Future<Output = ()> + Send + 'static,
        mut between: impl AsyncFnMut(CommitStep),
    ) {
        self.arm(true);
        let mut action = tokio::spawn(action);
        let mut done = false;
        loop {
            tokio::select! {
                biased;
                reached = self.reached.recv() => {
                    let (step, go_on) = reached.expect("the committer holds the sender");
                    between(step).await;
                    let _: Result<(), ()> = go_on.send(());
                    // The task that wakes may come before or after the end of the action.
                    let may_be_last = matches!(step, CommitStep::Answered | CommitStep::Woken);
                    if may_be_last && done && self.reached.is_empty() {
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
        self.arm(false);
        while let Ok((_, go_on)) = self.reached.try_recv() {
            let _: Result<(), ()> = go_on.send(());
        }
    }
}

fn next_batch(answer: &Value) -> String {
    answer["next_batch"].as_str().expect("checked").to_owned()
}

both_engines! {
    async fn a_sync_that_ends_between_two_steps_of_a_commit_skips_nothing(server: TestServer) {
        let mut steps = Steps::of(server.app());
        for news in STORED {
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
            // The task that wakes may be late, and come for an earlier commit.
            seen.retain(|step| *step != CommitStep::Woken);
            assert!(seen.starts_with(&[CommitStep::Taken, CommitStep::Stored, CommitStep::Remembered]), "{seen:?}");
            told += world.told(news, &world.bob.sync(Some(&since)).await);
            assert_eq!(told, 1, "{news:?}");
        }
    }

    async fn who_comes_back_between_two_steps_of_a_commit_skips_nothing(server: TestServer) {
        let mut steps = Steps::of(server.app());
        for news in STORED {
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
        for news in STORED {
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

    async fn ephemeral_news_is_told_once_whoever_was_forgotten_meanwhile(server: TestServer) {
        let forgets = [[false, false], [true, false], [false, true]];
        let cases = EPHEMERAL.into_iter().flat_map(|news| forgets.map(|forgets| (news, forgets)));
        for (index, (news, [before, after])) in cases.enumerate() {
            let world = World::of(&server, &index.to_string()).await;
            let mut since = next_batch(&world.bob.sync(None).await);
            if before {
                server.app().bus.forget_idle(i64::MAX);
            }
            world.clone().happens(news).await;
            if after {
                server.app().bus.forget_idle(i64::MAX);
            }
            let mut told = 0;
            for _ in 0..2 {
                let answer = world.bob.sync(Some(&since)).await;
                told += world.told(news, &answer);
                since = next_batch(&answer);
            }
            assert_eq!(told, 1, "{news:?}, {before}, {after}");
        }
    }

    /// The task that wakes may be late; an answer does not wait for it, and neither does a sync that begins afterwards.
    async fn a_sync_that_begins_after_the_answer_sees_the_write_whoever_is_woken_late(server: TestServer) {
        let world = World::of(&server, "late").await;
        let mut since = next_batch(&world.bob.sync(None).await);
        server.app().db.committer().on_step(Arc::new(|step| Box::pin(async move {
            if step == CommitStep::Woken {
                std::future::pending::<()>().await;
            }
        })));
        // From the first of these on, nobody is woken.
        for (txn, body) in [("late1", "held"), ("late2", "the news")] {
            world.alice.send_text(&world.shared, txn, body).await;
            let answer = world.bob.sync_with(Some(&since), "timeout=60000").await;
            let told = &answer["rooms"]["join"][&world.shared]["timeline"]["events"];
            assert_eq!(told[0]["content"]["body"], body, "{answer}");
            since = next_batch(&answer);
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

/// The server may be in the middle of a commit of its own when a test begins.
#[test]
fn a_batch_that_was_taken_before_is_not_waited_for() {
    use CommitStep::{Answered, Published, Remembered, Stored, Taken, Woken};
    let mut gate = Gate::default();
    let waits_at = |gate: &mut Gate, steps: &[CommitStep]| -> Vec<CommitStep> {
        steps.iter().copied().filter(|step| gate.waits_at(*step)).collect()
    };
    assert_eq!(waits_at(&mut gate, &[Taken, Stored]), []);
    gate.set(true);
    let steps = [Remembered, Published, Answered, Woken, Taken, Woken, Stored, Remembered];
    assert_eq!(waits_at(&mut gate, &steps), [Taken, Woken, Stored, Remembered]);
    // The next test begins while that batch is under way.
    gate.set(false);
    assert_eq!(waits_at(&mut gate, &[Published]), []);
    gate.set(true);
    assert_eq!(waits_at(&mut gate, &[Answered, Woken, Taken, Stored]), [Taken, Stored]);
    gate.set(false);
    assert_eq!(waits_at(&mut gate, &[Remembered, Taken]), []);
}

/// Two devices with different tokens, one of which looks in between, and so many rooms with news that these push each
/// other out of the user's set. The set does not depend on the engine.
#[tokio::test]
async fn each_device_is_told_all_news_however_many_rooms_have_some() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..300 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        rooms.push(room);
    }
    let tablet = bob.login_again().await;
    let (mut of_bob, of_tablet) = (next_batch(&bob.sync(None).await), next_batch(&tablet.sync(None).await));
    let bodies = |answer: &Value| {
        let in_room = |room: &String| {
            answer["rooms"]["join"][room]["timeline"]["events"]
                .as_array()
                .map_or(0, |events| events.iter().filter(|event| event["content"]["body"] == "the news").count())
        };
        rooms.iter().map(in_room).sum::<usize>()
    };
    let mut told = 0;
    for (index, room) in rooms.iter().enumerate() {
        alice.send_text(room, "news", "the news").await;
        if index % 100 == 50 {
            let answer = bob.sync(Some(&of_bob)).await;
            told += bodies(&answer);
            of_bob = next_batch(&answer);
        }
    }
    told += bodies(&bob.sync(Some(&of_bob)).await);
    assert_eq!(told, rooms.len());
    assert_eq!(bodies(&tablet.sync(Some(&of_tablet)).await), rooms.len(), "it has not looked since");
}
