//! Connections that fall silent or are cut, and a database that is away.

use sabha::store::committer::Ended;

use crate::harness::Parks;

use super::*;

/// The first statement of a new writing connection, once it has raised the epoch.
const LOCK: fn(&str) -> bool = |text| text.contains("pg_try_advisory_lock");

/// The query for the rooms of a user.
const ROOMS_OF_USER: fn(&str) -> bool =
    |text| text.starts_with("SELECT room_nid, membership, event_nid, pos, forgotten");

/// The query for a page of messages.
const PAGE: fn(&str) -> bool = |text| text.contains("FROM timeline");

#[tokio::test]
async fn a_new_connection_that_goes_silent_at_once_is_replaced() {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().strike(LOCK, Fault::Stall);
    world.server.proxy().cut();
    let sending = world.sends("one");
    world.server.proxy().struck().await;
    // The stall may outlast the server's timeout, so the client may have been told to retry.
    drop(sending.await.expect("answered"));
    assert_eq!(world.bob_hears().await.0, ["one"], "it was sent again");
    again(&world, "one").await;
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn a_query_that_is_never_answered_is_given_up() {
    let Some(mut world) = World::new().await else { return };
    let messages = v3(["rooms", &world.room, "messages"]) + "?dir=f";
    // Repeated more often than there are reading connections.
    for _ in 0..3 {
        world.server.proxy().strike_reader(PAGE, Fault::Stall);
        world.alice.get(&messages).await.error(503, "M_UNKNOWN");
        world.server.proxy().struck().await;
    }
    assert_eq!(world.bodies().await, ["before"]);
    world.goes_on().await;
}

#[tokio::test]
async fn connections_that_fell_silent_are_replaced() {
    let Some(mut world) = World::new().await else { return };
    for _ in 0..2 {
        // A firewall that forgets connections does the same: it drops data and tells nobody.
        world.server.proxy().silence();
        let (one, two, three) = tokio::join!(world.bodies(), world.bodies(), world.bodies());
        for bodies in [one, two, three] {
            assert_eq!(bodies, ["before"]);
        }
    }
    // The failure of the writing connection may outlast the server's timeout, so the client may be told to retry.
    drop(world.sends("one").await.expect("answered"));
    assert_eq!(world.bob_hears().await.0, ["one"]);
    again(&world, "one").await;
    world.goes_on().await;
}

#[tokio::test]
async fn a_server_stops_in_time_without_its_database() {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().refuse(Manner::Close);
    world.server.proxy().cut();
    // Nothing was written since, so the committer does not know yet; the last write before the end is the first to find
    // out.
    let stopped = tokio::time::timeout(Duration::from_secs(10), world.server.stop()).await;
    stopped.expect("it stops while a container runtime waits");
    world.server.proxy().allow();
    world.server.restart().await;
    world.goes_on().await;
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_comes_online_is_announced() {
    // Longer than the test takes.
    let Some(world) = World::with_read(Duration::from_secs(600)).await else { return };
    let since = next_batch(&world.bob.sync(Some(&world.since)).await);
    let (mut parks, bob) = (Parks::watch(), world.bob.clone());
    let mut parked = tokio::spawn(async move { bob.sync_with(Some(&since), "timeout=60000").await });
    tokio::select! {
        () = parks.next() => {}
        answer = &mut parked => panic!("there is nothing new, so it waits: {answer:?}"),
    }
    // Alice has never synced, so her rooms are dropped from memory and read again next time.
    world.server.app().rooms.forget_idle();
    world.server.proxy().strike_reader(ROOMS_OF_USER, Fault::Stall);
    let alice = world.alice.clone();
    let syncing = tokio::spawn(async move { alice.sync(None).await });
    world.server.proxy().struck().await;
    syncing.abort();
    let answer = parked.await.expect("answered");
    let events = answer["presence"]["events"].as_array().into_iter().flatten();
    let online: Vec<_> = events.filter(|event| event["content"]["presence"] == "online").collect();
    assert!(online.iter().any(|event| event["sender"] == world.alice.user_id), "{answer}");
}

#[tokio::test]
async fn nobody_notices_that_postgresql_was_restarted() {
    let Some(mut world) = World::new().await else { return };
    let mut other = world.server.postgres().await;
    for _ in 0..3 {
        // Ends every connection of the server, including the committer's, as a restart does.
        let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        other.execute(end).await.expect("it runs");
        for _ in 0..5 {
            assert!(world.bodies().await.starts_with(&["before".to_owned()]));
        }
        other.execute(end).await.expect("it runs");
        again(&world, "one").await;
    }
    assert_eq!(world.bob_hears().await.0, ["one"]);
    world.goes_on().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_at_once_and_found_again() {
    for manner in [Manner::Close, Manner::CloseLater] {
        is_away_and_found_again(manner).await;
    }
}

async fn is_away_and_found_again(manner: Manner) {
    let Some(mut world) = World::new().await else { return };
    world.server.proxy().refuse(manner);
    world.server.proxy().cut();
    let messages = v3(["rooms", &world.room, "messages"]) + "?dir=f";
    let answer = world.alice.get(&messages).await;
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    answer.error(503, "M_UNKNOWN");
    world.sends("one").await.expect("answered").error(503, "M_UNKNOWN");
    world.sends("never").await.expect("answered").error(503, "M_UNKNOWN");
    let ready = world.alice.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(world.alice.get("/health").await.status, 200);
    // A client without news can still wait, because that needs no query.
    let bob = (world.bob.clone(), world.since.clone());
    let waiting = tokio::spawn(async move { bob.0.sync_with(Some(&bob.1), "timeout=60000").await });

    world.server.proxy().allow();
    // The first message was queued before the failure was known, and is stored now.
    let answer = waiting.await.expect("answered");
    assert_eq!(answer["rooms"]["join"][&world.room]["timeline"]["events"][0]["content"]["body"], "one");
    world.since = next_batch(&answer);
    again(&world, "one").await;
    world.goes_on().await;
    assert_eq!(world.bodies().await, ["before", "one", "after", "later"]);
}

#[tokio::test]
async fn a_server_that_has_slept_answers_only_when_it_knows_that_nobody_has_replaced_it() {
    let clock = Clock::manual(1_700_000_000_000);
    let Some(world) = World::with_clock(&clock).await else { return };
    let (silence, whoami) = (Patience::default().silence, v3(["account", "whoami"]));
    let well_known = "/.well-known/matrix/client";
    clock.advance(silence);
    world.alice.get(&whoami).await.ok();
    assert_eq!(world.alice.get("/ready").await.status, 200);
    let discovered = world.alice.get(well_known).await.text;

    world.server.proxy().refuse(Manner::Close);
    world.server.proxy().cut();
    // The last answer of the database is not old enough.
    world.alice.get(&whoami).await.ok();
    clock.advance(silence);
    let answer = world.alice.get(&whoami).await;
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    answer.error(503, "M_UNKNOWN");
    assert_eq!(world.alice.get("/ready").await.status, 503);
    assert_eq!(world.alice.get("/health").await.status, 200);
    assert_eq!(world.alice.get(well_known).await.text, discovered, "it says nothing of any data");

    world.server.proxy().allow();
    let committer = world.server.app().db.committer();
    while committer.current().await.is_err() {}
    world.alice.get(&whoami).await.ok();

    let mut other = world.server.postgres().await;
    other.execute("UPDATE writer_slot SET epoch = epoch + 1, holder = 1").await.expect("it runs");
    clock.advance(silence);
    world.alice.get(&whoami).await.error(503, "M_UNKNOWN");
    assert_eq!(committer.ended().await, Ended::Fenced);
    let ready = world.alice.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("another process"), "{}", ready.text);
}
