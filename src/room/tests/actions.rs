//! Acts of users: they talk, repeat a request, create rooms and forget them.

use ruma::RoomVersionId;
use serde_json::json;

use super::*;

#[tokio::test]
async fn two_people_talk_in_every_room_version() {
    let server = server().await;
    let alice = server.register("alice").await;
    let bob = server.register("bob").await;
    for version in sabha_federation::supported_room_versions() {
        let rooms = &server.app.rooms;
        let room_id = rooms.create(&alice, new_room(version.clone(), Preset::Public)).await.expect("created");
        rooms.join(&bob, &room_id, None).await.expect("joined");
        let (_, since) = server.sync(&bob, None).await;
        let txn = TxnKey { device: alice.device_nid, scope: format!("send/{room_id}").into(), txn: "1".into() };
        let sent = rooms.send(&alice, &room_id, message("hello"), Some(txn.clone())).await.expect("sent");
        let again = rooms.send(&alice, &room_id, message("hello"), Some(txn)).await.expect("sent");
        assert_eq!(sent, again, "{version}");
        let (answer, _) = server.sync(&bob, Some(since)).await;
        let timeline = &answer["rooms"]["join"][room_id.as_str()]["timeline"];
        let bodies: Vec<_> =
            timeline["events"].as_array().into_iter().flatten().map(|e| &e["content"]["body"]).collect();
        assert_eq!(bodies, [&json!("hello")], "{version}: {answer}");
        assert_eq!(timeline["limited"], false, "{version}");
    }
}

#[tokio::test]
async fn a_transaction_id_is_known_from_the_queue_on_whatever_leaves_the_cache() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
    let room = rooms.require(&room_id).await.expect("a room");
    let key = |txn: &str| TxnKey { device: alice.device_nid, scope: format!("send/{room_id}").into(), txn: txn.into() };
    let find = async |txn: &str| rooms.txn_ids.find(&key(txn)).await.expect("a database");

    let gate = hold_commits(&server);
    assert_eq!(find("1").await, None);
    rooms.txn_ids.drop_devices();
    let mut writer = rooms.enter(&room).await.expect("entered");
    let event_id = writer.append(&alice.user, message("hello")).await.expect("appended");
    let committed = writer.commit(Some(key("1"))).expect("queued");
    assert_eq!(find("1").await, Some(event_id.clone()), "the device was read from a database without the event");
    // Another request of the device fails; the first is still known.
    drop(rooms.txn_ids.queue(key("2"), &event_id));
    assert_eq!(find("2").await, None);
    assert_eq!(find("1").await, Some(event_id.clone()));
    gate.add_permits(1_000);
    committed.wait().await.expect("committed");
    assert_eq!(find("1").await, Some(event_id.clone()), "it was committed to a device that was read before");
    rooms.txn_ids.drop_devices();
    assert_eq!(find("1").await, Some(event_id.clone()), "it is in the database");
    let again = rooms.send(&alice, &room_id, message("hello"), Some(key("1"))).await.expect("sent");
    assert_eq!(again, event_id);
}

#[tokio::test]
async fn rooms_made_alike_in_one_millisecond_are_different_rooms() {
    let server = server_with(None, Clock::manual(1_700_000_000_000), |_| {}).await;
    let alice = server.register("alice").await;
    let mut made = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let room = server.app.rooms.create(&alice, new_room(RoomVersionId::V12, Preset::Private)).await;
        assert!(made.insert(room.expect("created")), "{made:?}");
    }
}

#[tokio::test]
async fn a_membership_that_changed_meanwhile_is_not_forgotten() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
    let room = rooms.find(&room_id).await.expect("read").expect("it was created");
    rooms.join(&bob, &room_id, None).await.expect("joined");
    rooms.leave(&bob, &room_id, None).await.expect("left");
    let entry = async || rooms.member_entry(bob.user.nid, room.nid).await.expect("read").expect("they met");
    let left = entry().await;

    rooms.join(&bob, &room_id, None).await.expect("joined again");
    assert!(!rooms.forget_entry(bob.user.nid, left.clone()).await.expect("asked"), "bob is in the room");
    rooms.leave(&bob, &room_id, None).await.expect("left");
    assert!(!rooms.forget_entry(bob.user.nid, left).await.expect("asked"), "another departure");
    let forgotten = async || {
        let in_memory = entry().await.forgotten;
        rooms.memberships.retain(|_| false);
        assert_eq!(entry().await.forgotten, in_memory, "memory and database agree");
        in_memory
    };
    assert!(!forgotten().await);
    assert!(rooms.forget(bob.user.nid, room.nid).await.expect("forgotten"));
    assert!(forgotten().await);
}
