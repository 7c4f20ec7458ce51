//! Readers beside commits: what is in memory, and what they may keep of it.

use ruma::RoomVersionId;
use serde_json::json;

use super::*;

#[tokio::test]
async fn an_initial_sync_shows_the_room_and_an_idle_one_asks_the_database_nothing() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id =
        server.app.rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let (answer, since) = server.sync(&alice, None).await;
    let room = &answer["rooms"]["join"][room_id.as_str()];
    let types: Vec<_> =
        room["timeline"]["events"].as_array().into_iter().flatten().map(|e| e["type"].clone()).collect();
    assert_eq!(types.first(), Some(&json!("m.room.create")), "{answer}");
    assert_eq!(room["summary"]["m.joined_member_count"], 1, "{answer}");
    let before = server.app.db.counters().statements();
    let (answer, _) = server.sync(&alice, Some(since)).await;
    assert_eq!(server.app.db.counters().statements() - before, 0, "{answer}");
    assert!(answer.get("rooms").is_none(), "{answer}");
}

#[tokio::test]
async fn what_was_read_before_a_redaction_is_not_kept_after_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
    let first = rooms.send_state(&alice, &room_id, topic("a slip")).await.expect("sent");
    let second = rooms.send_state(&alice, &room_id, topic("fine")).await.expect("sent");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    let mut reader = rooms.db.read().await.expect("a reader");
    let found = crate::store::events::find_event(&mut reader.conn(), second.as_str()).await.expect("read");
    drop(reader);
    let (nid, _) = found.expect("it was sent");
    let shows = async || {
        let event = rooms.events.get(&room, nid).await.expect("read");
        event.replaces.as_ref().map(|replaced| replaced.content.get().to_owned()).expect("the first one")
    };

    let before = rooms.events.redactions();
    let read = rooms.events.get(&room, nid).await.expect("read");
    rooms.send(&alice, &room_id, redaction(&first), None).await.expect("sent");
    rooms.events.keep(read, before);
    assert_eq!(shows().await, "{}");
}

#[tokio::test]
async fn a_range_that_ends_before_it_starts_holds_no_events() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await.expect("created");
    let earlier = server.app.db.committer().published();
    rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
    let room = rooms.find(&room_id).await.expect("read").expect("it is there");
    // A receipt for the newest event, seen by a look that began before it.
    assert_eq!(room.recent(room.last_pos(), earlier).map(|events| events.len()), Some(0));
    let (events, more) = rooms.timeline(&room, room.last_pos(), earlier, 10).await.expect("read");
    assert!(events.is_empty() && !more);
}
