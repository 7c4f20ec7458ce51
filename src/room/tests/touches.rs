//! Tests of the names that each request leaves in the commit log.

use ruma::{OwnedRoomAliasId, RoomAliasId, RoomVersionId};
use sabha_federation::EventDraft;
use serde_json::{json, value::to_raw_value};

use super::*;
use crate::{
    account_data::ACCOUNT,
    ephemeral::receipts::{Kind, Markers, NewReceipt},
    store::tests::touched_by,
};

fn alias(name: &str, user: &LocalDevice) -> OwnedRoomAliasId {
    RoomAliasId::parse(format!("#{name}:{}", user.user_id().server_name())).expect("an alias")
}

#[tokio::test]
async fn requests_about_rooms_name_what_they_change() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (db, rooms) = (&server.app.db, &server.app.rooms);

    let (tea, other) = (alias("tea", &alice), alias("other", &alice));
    let new = NewRoom { alias: Some(tea), publish: true, ..new_room(RoomVersionId::V11, Preset::Public) };
    let (room_id, mut touched) = touched_by(db, async { rooms.create(&alice, new).await.expect("created") }).await;
    touched.sort();
    touched.dedup();
    assert_eq!(touched, ["Alias", "Directory", "Event", "Member", "State"]);
    let room = rooms.require(&room_id).await.expect("a room");

    let txn = TxnKey { device: alice.device_nid, scope: format!("send/{room_id}").into(), txn: "1".into() };
    let send = rooms.send(&alice, &room_id, message("hello"), Some(txn));
    let (sent, touched) = touched_by(db, send).await;
    let sent = sent.expect("sent");
    assert_eq!(touched, ["Event", "Txn"]);

    let topic = state("m.room.topic", &json!({ "topic": "tea" }));
    let (result, touched) = touched_by(db, rooms.send_state(&alice, &room_id, topic)).await;
    result.expect("sent");
    assert_eq!(touched, ["State", "Event"]);

    let (result, touched) = touched_by(db, rooms.join(&bob, &room_id, None)).await;
    result.expect("joined");
    assert_eq!(touched, ["State", "Member", "Event"]);

    let markers = Markers {
        fully_read: Some(sent.clone()),
        receipts: vec![NewReceipt { kind: Kind::Read, thread: None, event_id: sent.clone() }],
    };
    let mark = server.app.ephemeral.mark_read(rooms, &room, &bob.user, markers);
    let (result, touched) = touched_by(db, mark).await;
    result.expect("marked");
    assert_eq!(touched, ["Receipt", "AccountData"]);

    let redaction = EventDraft {
        event_type: "m.room.redaction".to_owned(),
        state_key: None,
        content: to_raw_value(&json!({})).expect("JSON"),
        redacts: Some(sent),
    };
    let (result, touched) = touched_by(db, rooms.send(&alice, &room_id, redaction, None)).await;
    result.expect("redacted");
    assert_eq!(touched, ["Redacted", "Event"]);

    let (result, touched) = touched_by(db, rooms.leave(&bob, &room_id, None)).await;
    result.expect("left");
    assert_eq!(touched, ["State", "Member", "Event"]);
    let (forgotten, touched) = touched_by(db, rooms.forget(bob.user.nid, room.nid)).await;
    assert!(forgotten.expect("forgotten"));
    assert_eq!(touched, ["Member"]);

    let (result, touched) = touched_by(db, rooms.create_alias(&alice, &other, &room_id)).await;
    result.expect("created");
    assert_eq!(touched, ["Alias"]);
    let (result, touched) = touched_by(db, rooms.delete_alias(&alice, &other)).await;
    result.expect("deleted");
    assert_eq!(touched, ["Alias"]);
    let (result, touched) = touched_by(db, rooms.publish(&alice, &room_id, false)).await;
    result.expect("removed");
    assert_eq!(touched, ["Directory"]);
    // Nothing is left to remove.
    let (result, touched) = touched_by(db, rooms.publish(&alice, &room_id, false)).await;
    result.expect("removed");
    assert!(touched.is_empty(), "{touched:?}");
}

#[tokio::test]
async fn requests_about_accounts_name_what_they_change() {
    let server = server().await;
    let (db, accounts) = (&server.app.db, &server.app.accounts);
    let (alice, touched) = touched_by(db, server.register("alice")).await;
    assert_eq!(touched, ["Account", "Profile", "Device"]);
    let device_id = alice.device_id.clone().expect("a device");

    let content = to_raw_value(&json!({})).expect("JSON");
    let put = server.app.account_data.put(alice.user.nid, ACCOUNT, "m.direct", content);
    let (result, touched) = touched_by(db, put).await;
    result.expect("stored");
    assert_eq!(touched, ["AccountData"]);

    let (result, touched) = touched_by(db, accounts.set_admin(alice.user_id(), true)).await;
    assert!(result.expect("stored"));
    assert_eq!(touched, ["Account"]);

    let rename = accounts.rename_device(alice.user.nid, &device_id, Some("phone".to_owned()));
    let (result, touched) = touched_by(db, rename).await;
    assert!(result.expect("stored").expect("a good name"));
    assert_eq!(touched, ["Device", "DeviceList"]);

    let set = async |value: &str| {
        let set = accounts.set_profile_field(alice.user.nid, "displayname", Some(json!(value)));
        let (result, touched) = touched_by(db, set).await;
        result.expect("stored");
        touched
    };
    assert_eq!(set("Alice").await, ["Profile", "Job"]);
    // Only the job: a room may still show the old name.
    assert_eq!(set("Alice").await, ["Job"]);

    let (result, touched) = touched_by(db, accounts.delete_devices(alice.user.nid, &[device_id])).await;
    result.expect("deleted");
    assert_eq!(touched, ["Device", "Leftover", "Sessions", "DeviceList"]);

    let bob = server.register("bob").await;
    let (result, touched) = touched_by(db, accounts.deactivate(bob.user_id())).await;
    assert!(result.expect("deactivated"));
    assert_eq!(touched, ["Account", "Profile", "Leftover", "Leftover", "Sessions", "Device", "DeviceList"]);
}
