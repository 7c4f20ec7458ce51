//! Rooms that leave memory, and are loaded again.

use std::sync::Arc;

use ruma::RoomVersionId;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::*;
use crate::{room::ring::Rest, store::changed_rooms::AT_ONCE};

#[tokio::test]
async fn a_room_is_the_same_after_it_was_loaded_again() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id =
        server.app.rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
    let rooms = &server.app.rooms;
    for number in 0..300 {
        rooms.send_state(&alice, &room_id, topic(&number.to_string())).await.expect("sent");
    }
    let (before, _) = server.sync(&alice, None).await;
    // The first call clears the marks of use, and the second one evicts.
    rooms.forget_idle();
    rooms.forget_idle();
    assert!(rooms.registered(|registry| registry.by_id.get(&room_id)).is_none(), "nobody uses the room");
    let (after, _) = server.sync(&alice, None).await;
    let timeline = |answer: &Value| {
        let events = answer["rooms"]["join"][room_id.as_str()]["timeline"]["events"].clone();
        let ids = |event: &Value| (event["event_id"].clone(), event["unsigned"]["prev_content"].clone());
        events.as_array().into_iter().flatten().map(ids).collect::<Vec<_>>()
    };
    assert_eq!(timeline(&before), timeline(&after));
    assert_eq!(timeline(&after).len(), 10);
    rooms.send(&alice, &room_id, message("still here"), None).await.expect("sent");
}

#[tokio::test]
async fn a_broken_room_is_read_again_only_when_its_writes_are_settled() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    let gate = hold_commits(&server);
    let mut writer = rooms.enter(&room).await.expect("entered");
    writer.append(&alice.user, message("on its way")).await.expect("allowed");
    let committed = writer.commit(None).expect("queued");
    drop(room.lineage.until_finished());
    let app = server.app.clone();
    let wanted = room_id.clone();
    let found = tokio::spawn(async move { app.rooms.find(&wanted).await });
    for _ in 0..20 {
        // Each takes as long as a step of the search.
        crate::store::own_keys::own_keys(&mut rooms.db.read().await.expect("read").conn()).await.expect("read");
    }
    assert!(!found.is_finished());
    gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    assert!(matches!(committed.wait().await, Err(crate::store::Error::Superseded)));
    let found = found.await.expect("no panic").expect("read").expect("it is there");
    assert!(!Arc::ptr_eq(&found, &room));
    rooms.send(&alice, &room_id, message("still here"), None).await.expect("sent");
}

#[tokio::test]
async fn loading_a_room_reads_its_checkpoint_and_what_follows_but_no_keys() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    for event_type in ["org.example.first", "org.example.second"] {
        send_states(&server, &alice, &room, event_type, 300).await;
    }
    let state = room.view().state.entries().to_vec();
    drop(room);
    // The first call notes that nobody has used the room since.
    rooms.forget_idle();
    rooms.forget_idle();
    let before = server.app.db.counters().statements();
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    // The room with its head, the checkpoint, the changes after it, the forward extremities.
    assert_eq!(server.app.db.counters().statements() - before, 4);
    assert_eq!(room.view().state.entries(), state);
    rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
}

#[tokio::test]
async fn a_sync_of_a_large_state_evicts_nobodys_events() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    for (event_type, count, is_kept) in [("org.example.few", 300, true), ("org.example.many", 1_000, false)] {
        send_states(&server, &alice, &room, event_type, count).await;
        rooms.events.handle().evict_all();
        let (answer, _) = server.sync(&alice, None).await;
        let state = &answer["rooms"]["join"][room_id.as_str()]["state"]["events"];
        assert!(state.as_array().is_some_and(|events| events.len() > count - 20));
        let cached = rooms.events.cached();
        assert_eq!(cached > count / 2, is_kept, "{cached} events of {count} are cached");
    }
}

#[tokio::test]
async fn thinned_checkpoints_leave_every_state_readable() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    let mut states = Vec::new();
    for _ in 0..9 {
        // Each of these commits ends with a checkpoint.
        send_states(&server, &alice, &room, "org.example.test", 256).await;
        let upto = server.app.db.committer().published();
        states.push((upto, rooms.state_at(&room, upto).await.expect("read")));
        server.app.rooms.thin_checkpoints().await.expect("thinned");
    }
    // The ages that stay are 0, 1, 2, 4 and 8.
    assert_eq!(count_rows(&server.app.db, "state_checkpoint").await, 5);
    for (upto, state) in states {
        assert_eq!(rooms.state_at(&room, upto).await.expect("read"), state, "as of {upto:?}");
    }
    drop(room);
    rooms.forget_idle();
    rooms.forget_idle();
    rooms.send(&alice, &room_id, message("hello"), None).await.expect("the room loads, and its hash is right");
}

#[tokio::test]
async fn a_first_sync_of_rooms_whose_rings_were_shrunk_finds_their_latest_events_in_the_cache() {
    // The ages of the events stay the same.
    let server = server_with(None, Clock::manual(1_700_000_000_000), |_| {}).await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let mut created = Vec::new();
    for _ in 0..AT_ONCE + 8 {
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
        for _ in 0..12 {
            rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
        }
        created.push(rooms.require(&room_id).await.expect("a room"));
    }
    server.sync(&alice, None).await;
    let first_sync = async || {
        let before = server.app.db.counters().statements();
        let (mut answer, _) = server.sync(&alice, None).await;
        (answer["rooms"].take(), server.app.db.counters().statements() - before)
    };
    let with_events = first_sync().await;
    for rest in [Rest::Few, Rest::Nothing] {
        created.iter().for_each(|room| room.view_mut().ring.shrink(rest));
        assert!(created.iter().all(|room| room.latest(room.last_pos(), 11).is_none()), "{rest:?}");
        assert_eq!(first_sync().await, with_events, "{rest:?}");
    }
}

#[tokio::test]
async fn the_latest_events_of_quiet_rooms_leave_memory_when_those_of_all_rooms_are_too_large() {
    // The smallest budget: there is room for ten of these messages.
    let server = server_with(None, Clock::System, |config| config.memory.budget = ByteSize::mib(16)).await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let body = "x".repeat(60_000);
    let mut created = Vec::new();
    for _ in 0..4 {
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
        for _ in 0..8 {
            rooms.send(&alice, &room_id, message(&body), None).await.expect("sent");
        }
        created.push(rooms.require(&room_id).await.expect("a room"));
    }
    let held = || created.iter().map(|room| room.latest(room.last_pos(), 2).is_some()).collect::<Vec<_>>();
    assert!(rooms.rings.are_full());
    assert_eq!(held()[..2], [true, true]);
    rooms.shrink_rings();
    assert!(!rooms.rings.are_full());
    assert_eq!(held()[..2], [false, true], "the first room has been quiet for longest");
    for room in &created {
        let newest = room.recent(Position(room.last_pos().0 - 1), room.last_pos());
        assert!(newest.is_some_and(|events| events.len() == 1), "a client that waits for news finds it in memory");
    }
}
