use ruma::RoomVersionId;
use serde_json::Value;

use super::*;
use crate::{
    room::{
        tests::{Server, message, new_room, redaction, server},
        write::create::Preset,
    },
    sync::token::SyncToken,
};

/// Evicts all rooms and memberships.
fn evict(server: &Server, room: RoomNid) {
    let rooms = &server.app.rooms;
    server.app.bus.forget_idle(i64::MAX);
    // The first call clears the marks of use, and the second one evicts.
    rooms.forget_idle();
    rooms.forget_idle();
    assert!(rooms.in_memory(room).is_none(), "nobody uses it");
}

/// The answer without ages, which depend on the time.
fn without_ages(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            fields.remove("age");
            fields.values_mut().for_each(|value| *value = without_ages(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_ages(value.take())),
        _ => {}
    }
    answer
}

#[tokio::test]
async fn rooms_that_are_loaded_together_are_as_they_were() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let mut nids = Vec::new();
    // More than one statement reads, with few events and with more than are loaded with a room.
    for number in 0..AT_ONCE + 3 {
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
        rooms.join(&bob, &room_id, None).await.expect("joined");
        for text in 0..number {
            let event_id = rooms.send(&bob, &room_id, message(&text.to_string()), None).await.expect("sent");
            if text % 5 == 3 {
                rooms.send(&alice, &room_id, redaction(&event_id), None).await.expect("redacted");
            }
        }
        nids.push(rooms.find(&room_id).await.expect("read").expect("it was created").nid);
    }
    let (first, since) = server.sync(&alice, None).await;
    let (before, _) = server.sync(&alice, Some(SyncToken { position: Position(1), ..since })).await;
    for events in [WithEvents::None, WithEvents::Latest] {
        evict(&server, nids[0]);
        let mut changed = rooms.changed_since(alice.user.nid, Position::BEFORE_ALL, events).await.expect("read");
        changed.sort_unstable();
        assert_eq!(changed, nids);
        assert!(nids.iter().all(|room| rooms.in_memory(*room).is_some()), "they are loaded");
        let upto = server.app.db.committer().published();
        let rooms_with_events = nids
            .iter()
            .filter(|room| rooms.in_memory(**room).is_some_and(|room| room.latest(upto, LATEST_EVENTS).is_some()));
        assert_eq!(rooms_with_events.count(), if events == WithEvents::Latest { nids.len() } else { 0 });
        let (after, _) = server.sync(&alice, None).await;
        assert_eq!(without_ages(after["rooms"].clone()), without_ages(first["rooms"].clone()));
        let (after, _) = server.sync(&alice, Some(SyncToken { position: Position(1), ..since })).await;
        assert_eq!(without_ages(after["rooms"].clone()), without_ages(before["rooms"].clone()));
    }
}

#[tokio::test]
async fn only_rooms_with_news_count_as_changed() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let mut room_ids = Vec::new();
    for _ in 0..4 {
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
        rooms.join(&bob, &room_id, None).await.expect("joined");
        room_ids.push(room_id);
    }
    let nid = async |index: usize| rooms.find(&room_ids[index]).await.expect("read").expect("it was created").nid;
    let changed = async |since| {
        let mut changed = rooms.changed_since(bob.user.nid, since, WithEvents::None).await.expect("read");
        changed.sort_unstable();
        changed
    };
    let since = server.app.db.committer().published();
    assert_eq!(changed(since).await, []);
    rooms.send(&alice, &room_ids[1], message("hello"), None).await.expect("sent");
    assert_eq!(changed(since).await, [nid(1).await]);
    rooms.leave(&bob, &room_ids[2], None).await.expect("left");
    assert_eq!(changed(since).await, [nid(1).await, nid(2).await]);
    let since = server.app.db.committer().published();
    rooms.send(&alice, &room_ids[2], message("without bob"), None).await.expect("sent");
    assert_eq!(changed(since).await, [], "a room that the user has left");
}
