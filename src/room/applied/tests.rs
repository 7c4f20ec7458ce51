//! A second service on the same database, which only the entries of the commit log tell of changes.

use ruma::{EventId, RoomVersionId};

use super::*;
use crate::room::{
    Rooms,
    tests::{message, new_room, other_service, redaction, server},
    write::{create::Preset, txn::TxnKey},
};

/// The parts of the room that memory holds: its end, its state, an event, and the user's membership.
async fn digest(rooms: &Rooms, room: RoomNid, event_id: &EventId, user: UserNid) -> String {
    let room = rooms.by_nid(room).await.expect("it is stored");
    let (last_pos, hash) = (room.last_pos(), room.view().state.hash().to_bytes());
    let event = rooms.find_in_timeline(&room, event_id).await.expect("read").map(|event| event.pdu.json.clone());
    let MemberEntry { membership, event_nid, pos, forgotten, .. } =
        rooms.member_entry(user, room.nid).await.expect("read").expect("a member");
    format!("{last_pos:?} {hash:?} {event:?} {membership:?} {event_nid:?} {pos:?} {forgotten}")
}

#[tokio::test]
async fn rooms_in_memory_are_like_read_ones_after_each_commit() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V10, Preset::Public)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created").nid;
    rooms.join(&bob, &room_id, None).await.expect("it is public");
    let event_id = rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
    let follower = other_service(&server);
    for step in ["event", "redaction", "leave", "forget"] {
        digest(&follower, room, &event_id, bob.user.nid).await;
        match step {
            "event" => drop(rooms.send(&alice, &room_id, message("again"), None).await.expect("sent")),
            "redaction" => drop(rooms.send(&alice, &room_id, redaction(&event_id), None).await.expect("sent")),
            "leave" => rooms.leave(&bob, &room_id, None).await.expect("left"),
            _ => assert!(rooms.forget(bob.user.nid, room).await.expect("forgotten")),
        }
        assert_eq!(rooms.memory.queued_len(), 0, "everything is known to everyone");
        let expected = digest(&other_service(&server), room, &event_id, bob.user.nid).await;
        assert_eq!(digest(rooms, room, &event_id, bob.user.nid).await, expected, "{step}");
        assert_eq!(digest(&follower, room, &event_id, bob.user.nid).await, expected, "{step}");
    }
}

#[tokio::test]
async fn an_event_that_is_not_stored_waits_for_nothing() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    let key = TxnKey { device: alice.device_nid, scope: "send".into(), txn: "1".into() };
    let mut writer = rooms.enter(&room).await.expect("entered");
    writer.append(&alice.user, message("hello")).await.expect("allowed");
    // An earlier write of the room fails meanwhile.
    drop(writer.room.lineage.until_finished());
    writer.commit(Some(key.clone())).expect("queued").wait().await.expect_err("its chain is broken");
    assert_eq!(rooms.memory.queued_len(), 0);
    assert_eq!(rooms.txn_ids.find(&key).await.expect("read"), None);
}
