//! Commits whose answer is lost, comes late or never comes.

use sabha::store::committer::Ended;

use super::*;

/// A batch of only rows is one statement.
const ONE_CALL: fn(&str) -> bool = |text| text.starts_with("WITH ") && text.contains("writer_slot");

/// The end of a batch of several statements.
const COMMIT: fn(&str) -> bool = |text| text == "COMMIT";

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_known_to_have_happened() {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().strike(ONE_CALL, Fault::LoseAnswer);
    let sent = world.sends("one").await.expect("answered").ok();
    assert_eq!(world.bob_hears().await.0, ["one"]);
    assert_eq!(again(&world, "one").await, sent["event_id"].as_str().expect("checked"));

    world.server.proxy().strike(COMMIT, Fault::LoseAnswer);
    world.sends_to_device("two").await.expect("answered").ok();
    assert_eq!(world.bob_hears().await.1, ["two"]);

    // Memory is updated as well: Bob is in the room that he has joined.
    let other = world.alice.create_room(json!({ "preset": "public_chat" })).await;
    world.server.proxy().strike(ONE_CALL, Fault::LoseAnswer);
    world.bob.join(&other).await;
    let answer = world.bob.sync(Some(&world.since)).await;
    assert!(answer["rooms"]["join"][&other].is_object(), "{answer}");
    world.since = next_batch(&answer);
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn while_nobody_knows_whether_a_commit_happened_writers_are_told_to_come_back() {
    let Some(mut world) = World::new().await else { return };
    for (recognizes, is_message) in [(ONE_CALL, true), (COMMIT, false)] {
        world.server.proxy().strike(recognizes, Fault::LoseAnswer);
        world.server.proxy().refuse(Manner::Close);
        let sending = if is_message { world.sends("one") } else { world.sends_to_device("two") };
        world.server.proxy().struck().await;
        let answer = sending.await.expect("answered");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
        answer.error(503, "M_UNKNOWN");
        // A new write is refused at once, and not made later.
        world.sends("never").await.expect("answered").error(503, "M_UNKNOWN");
        let ready = world.alice.get("/ready").await;
        assert_eq!((ready.status.as_u16(), &ready.json["checks"][1]["ok"]), (503, &json!(false)), "{ready:?}");

        world.server.proxy().allow();
        let (messages, to_device) = world.bob_hears().await;
        if is_message {
            assert_eq!(messages, ["one"], "it was stored, so everyone hears of it");
            again(&world, "one").await;
        } else {
            assert_eq!(to_device, ["two"]);
            world.sends_to_device("two").await.expect("answered").ok();
        }
    }
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn a_batch_that_arrives_after_its_connection_was_lost_is_refused() {
    for fault in [Fault::HoldBack, Fault::Stall] {
        let Some(mut world) = World::new().await else { return };
        world.server.proxy().strike(ONE_CALL, fault);
        let sending = world.sends("one");
        world.server.proxy().struck().await;
        // A stall may outlast the server's timeout, so the client may have been told to retry.
        drop(sending.await.expect("answered"));
        assert_eq!(world.bob_hears().await.0, ["one"], "it was sent again");
        let late = world.server.proxy().release().await;
        assert!(late.contains("writer_slot"), "{fault:?}: {late}");
        again(&world, "one").await;
        world.goes_on().await;
        assert_eq!(world.bodies().await, ["before", "one", "after", "later"], "{fault:?}");
    }
}

#[tokio::test]
async fn an_old_backend_that_commits_late_is_waited_for() {
    for fault in [Fault::HoldBack, Fault::Stall] {
        let Some(mut world) = World::new().await else { return };
        world.server.proxy().strike(COMMIT, fault);
        let sending = world.sends_to_device("one");
        world.server.proxy().struck().await;
        // The old backend holds a lock on the slot's row until it has committed.
        let late = world.server.proxy().release().await;
        assert!(late.contains("COMMIT"), "{fault:?}: {late}");
        drop(sending.await.expect("answered"));
        assert_eq!(world.bob_hears().await.1, ["one"], "{fault:?}");
        world.sends_to_device("one").await.expect("answered").ok();
        world.goes_on().await;
    }
}

#[tokio::test]
async fn a_server_whose_database_was_taken_over_ends() {
    let Some(world) = World::new().await else { return };
    let mut other = world.server.postgres().await;
    let events = sqlx::query_as("SELECT COUNT(*) FROM event");
    let before: (i64,) = events.fetch_one(&mut other).await.expect("it runs");
    world.server.proxy().strike(ONE_CALL, Fault::HoldBack);
    other.execute("UPDATE writer_slot SET epoch = epoch + 1, holder = 1").await.expect("it runs");
    world.sends("one").await.expect("answered").error(503, "M_UNKNOWN");
    assert_eq!(world.server.app().db.committer().ended().await, Ended::Fenced);
    let ready = world.alice.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("another process"), "{}", ready.text);
    world.sends("two").await.expect("answered").error(503, "M_UNKNOWN");
    // The other process may have more.
    world.alice.get(&v3(["joined_rooms"])).await.error(503, "M_UNKNOWN");
    let events = sqlx::query_as("SELECT COUNT(*) FROM event");
    let after: (i64,) = events.fetch_one(&mut other).await.expect("it runs");
    assert_eq!(after, before, "nothing more is stored");
}
