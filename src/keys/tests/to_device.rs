//! Messages to devices: bounds, order, acknowledgement and deletion.

use super::*;

type Message = Raw<ruma::events::AnyToDeviceEventContent>;

fn messages(
    to: &[(&LocalDevice, &str)],
    body: &Value,
) -> BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Message>> {
    let mut messages = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (device, id) in to {
        let id = DeviceIdOrAllDevices::try_from(*id).expect("an ID");
        let content = Raw::from_json_string(body.to_string()).expect("JSON");
        messages.entry(device.user_id().to_owned()).or_default().insert(id, content);
    }
    messages
}

pub(super) async fn send(fixture: &Fixture, from: &LocalDevice, txn: &str, to: &LocalDevice, number: i64) {
    let messages = messages(&[(to, id_of(to).as_str())], &json!({ "number": number }));
    fixture.keys.send_to_device(from, "m.test", <&TransactionId>::from(txn), &messages).await.expect("it is sent");
}

pub(super) async fn received(
    fixture: &Fixture,
    device: DeviceNid,
    since: Position,
    limit: usize,
) -> (Vec<i64>, Position) {
    let upto = fixture.db.committer().published();
    let (messages, next) = fixture.keys.to_device_messages(device, since, upto, limit).await.expect("messages");
    let numbers = messages
        .iter()
        .map(|message| {
            let event: Value = serde_json::from_str(message.get()).expect("JSON");
            assert_eq!((&event["sender"], &event["type"]), (&json!("@alice:example.org"), &json!("m.test")));
            event["content"]["number"].as_i64().expect("a number")
        })
        .collect();
    (numbers, next)
}

#[tokio::test]
async fn messages_stay_until_they_are_acknowledged() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    for number in 0..5 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
    }
    // Repeating a transaction ID sends nothing.
    send(&fixture, &alice, "t0", &bob, 9).await;
    let (first, next) = received(&fixture, bob.device_nid, Position::BEFORE_ALL, 2).await;
    assert_eq!(first, [0, 1]);
    // The answer was lost, so the client asks again, also after a restart.
    let fixture = fixture.reopen().await;
    assert_eq!(received(&fixture, bob.device_nid, Position::BEFORE_ALL, 2).await, (first, next));
    fixture.keys.acknowledge_to_device(bob.device_nid, next).await.expect("acknowledged");
    assert_eq!(received(&fixture, bob.device_nid, Position::BEFORE_ALL, 10).await.0, [2, 3, 4]);
    assert_eq!(received(&fixture, bob.device_nid, next, 10).await.0, [2, 3, 4]);
    let upto = fixture.db.committer().published();
    fixture.keys.acknowledge_to_device(bob.device_nid, upto).await.expect("acknowledged");
    assert_eq!(received(&fixture, bob.device_nid, Position::BEFORE_ALL, 10).await.0, [0; 0]);
}

#[tokio::test]
async fn a_device_that_fetches_nothing_keeps_the_newest_messages() {
    let fixture = Fixture::new(|config| config.limits.to_device_per_device = 16).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    for number in 0..40 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
        let (waiting, _) = received(&fixture, bob.device_nid, Position::BEFORE_ALL, 100).await;
        assert!(waiting.len() <= 16 && waiting.last() == Some(&number), "{waiting:?}");
    }
    assert!(received(&fixture, bob.device_nid, Position::BEFORE_ALL, 100).await.0.len() >= 15);
}

#[tokio::test]
async fn what_was_fetched_makes_room_for_what_comes() {
    let fixture = Fixture::new(|config| config.limits.to_device_per_device = 16).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    for number in 0..10 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
    }
    let (_, next) = received(&fixture, bob.device_nid, Position::BEFORE_ALL, 6).await;
    fixture.keys.acknowledge_to_device(bob.device_nid, next).await.expect("acknowledged");
    for number in 10..22 {
        send(&fixture, &alice, &format!("t{number}"), &bob, number).await;
    }
    let (waiting, _) = received(&fixture, bob.device_nid, Position::BEFORE_ALL, 100).await;
    assert_eq!(waiting, (6..22).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_devices_are_reached_and_unknown_ones_ignored() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB1").await;
    let bob2 = fixture.device(&owned_user_id!("@bob:example.org"), "BOB2").await;
    let send = async |txn: &str, id: &str, body: Value| {
        let messages = messages(&[(&bob, id)], &body);
        fixture.keys.send_to_device(&alice, "m.test", <&TransactionId>::from(txn), &messages).await
    };
    send("1", "*", json!({ "number": 1 })).await.expect("sent");
    send("2", "NOBODY", json!({ "number": 2 })).await.expect("ignored");
    for device in [&bob, &bob2] {
        assert_eq!(received(&fixture, device.device_nid, Position::BEFORE_ALL, 10).await.0, [1]);
    }
    assert!(matches!(send("3", "*", json!("text")).await, Err(SendToDeviceError::NotAnObject)));
    assert!(matches!(send("4", "*", json!({ "x": "x".repeat(65_536) })).await, Err(SendToDeviceError::TooLarge)));
}

#[tokio::test]
async fn a_message_to_a_device_that_is_signed_out_meanwhile_is_not_stored() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB1").await;
    let bob2 = fixture.device(&owned_user_id!("@bob:example.org"), "BOB2").await;
    let messages = messages(&[(&bob, "*")], &json!({ "number": 1 }));
    let prepared = fixture.keys.prepare(&alice, "m.test", <&TransactionId>::from("t"), &messages).await.expect("good");
    fixture.db.committer().transact(Delete(bob.user.nid, bob.device_nid)).await.expect("deleted");
    for part in prepared {
        fixture.db.committer().transact(part).await.expect("sent");
    }
    assert_eq!(received(&fixture, bob.device_nid, Position::BEFORE_ALL, 10).await.0, [0; 0]);
    assert_eq!(received(&fixture, bob2.device_nid, Position::BEFORE_ALL, 10).await.0, [1]);
}

#[tokio::test]
async fn a_message_to_many_devices_has_one_body_until_the_last_of_them_has_it() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let mut devices = Vec::new();
    for number in 0..30 {
        devices.push(fixture.device(&owned_user_id!("@bob:example.org"), &format!("BOB{number}")).await);
    }
    let to_all = messages(&[(&devices[0], "*")], &json!({ "number": 1 }));
    fixture.keys.send_to_device(&alice, "m.test", <&TransactionId>::from("1"), &to_all).await.expect("sent");
    send(&fixture, &alice, "2", &devices[0], 2).await;
    let rows = async || (count_rows(&fixture.db, "to_device").await, count_rows(&fixture.db, "to_device_shared").await);
    assert_eq!(rows().await, (31, 1));
    let upto = fixture.db.committer().published();
    for (index, device) in devices.iter().enumerate() {
        let expected = if index == 0 { vec![1, 2] } else { vec![1] };
        assert_eq!(received(&fixture, device.device_nid, Position::BEFORE_ALL, 10).await.0, expected);
        assert_eq!(rows().await.1, 1);
        fixture.keys.acknowledge_to_device(device.device_nid, upto).await.expect("acknowledged");
        fixture.keys.delete_acknowledged().await.expect("deleted");
    }
    assert_eq!(rows().await, (0, 0));
}

#[tokio::test]
async fn a_message_to_very_many_devices_goes_on_where_it_was_interrupted() {
    let fixture = Fixture::new(|_| {}).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let mut devices = Vec::new();
    for number in 0..600 {
        devices.push(fixture.device(&owned_user_id!("@bob:example.org"), &format!("BOB{number}")).await);
    }
    let to_all = |number: i64| messages(&[(&devices[0], "*"), (&devices[0], "BOB7")], &json!({ "number": number }));
    let mut fixture = fixture;
    for (number, txn) in [(1, "after one part"), (2, "after two parts")] {
        let txn = <&TransactionId>::from(txn);
        let parts: Vec<_> = fixture.keys.prepare(&alice, "m.test", txn, &to_all(number)).await.expect("good").collect();
        assert_eq!(parts.len(), 3);
        for part in parts.into_iter().take(number as usize) {
            fixture.db.committer().transact(part).await.expect("sent");
        }
        // The server stopped here. The client retries, twice.
        fixture = fixture.reopen().await;
        for _ in 0..2 {
            fixture.keys.send_to_device(&alice, "m.test", txn, &to_all(number)).await.expect("sent");
        }
    }
    // Two overlapping requests: the second one starts, and continues, between the parts of the first.
    let txn = <&TransactionId>::from("overlapping");
    let mut requests = Vec::new();
    for _ in 0..2 {
        let parts = fixture.keys.prepare(&alice, "m.test", txn, &to_all(3)).await.expect("good");
        requests.push(parts);
    }
    for request in [0, 0, 1, 1, 0, 1] {
        let part = requests[request].next().expect("a part is left");
        fixture.db.committer().transact(part).await.expect("sent");
    }
    for (index, device) in devices.iter().enumerate() {
        let expected = if index == 7 { vec![1, 1, 2, 2, 3, 3] } else { vec![1, 2, 3] };
        assert_eq!(received(&fixture, device.device_nid, Position::BEFORE_ALL, 10).await.0, expected, "device {index}");
    }
}

#[tokio::test]
async fn whoever_floods_an_inbox_loses_their_own_messages() {
    let fixture = Fixture::new(|config| config.limits.to_device_per_device = 16).await;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let other = fixture.device(&owned_user_id!("@alice:example.org"), "OTHER").await;
    let mallory = fixture.device(&owned_user_id!("@mallory:example.org"), "M").await;
    for number in 0..3 {
        send(&fixture, &alice, &format!("a{number}"), &other, number).await;
    }
    for number in 0..50 {
        send(&fixture, &mallory, &format!("m{number}"), &other, 100 + number).await;
    }
    send(&fixture, &alice, "last", &other, 3).await;
    let upto = fixture.db.committer().published();
    let (waiting, _) =
        fixture.keys.to_device_messages(other.device_nid, Position::BEFORE_ALL, upto, 100).await.expect("messages");
    assert!(waiting.len() <= 16);
    let waiting: Vec<Value> = waiting.iter().map(|event| serde_json::from_str(event.get()).expect("JSON")).collect();
    let of_alice = waiting.iter().filter(|event| event["sender"] == "@alice:example.org");
    assert_eq!(
        of_alice.map(|event| event["content"]["number"].as_i64()).collect::<Vec<_>>(),
        (0..4).map(Some).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn an_inbox_is_bounded_in_bytes_and_so_is_an_answer() {
    let mut fixture = Fixture::new(|_| {}).await;
    Arc::get_mut(&mut fixture.keys).expect("nobody else has it").to_device_bytes = 2_000_000;
    let alice = fixture.device(&owned_user_id!("@alice:example.org"), "DEV").await;
    let bob = fixture.device(&owned_user_id!("@bob:example.org"), "BOB").await;
    let large = |number: i64| messages(&[(&bob, "BOB")], &json!({ "number": number, "x": "x".repeat(60_000) }));
    for number in 0..80 {
        let txn = format!("t{number}");
        let txn = <&TransactionId>::from(txn.as_str());
        fixture.keys.send_to_device(&alice, "m.test", txn, &large(number)).await.expect("sent");
    }
    let (mut all, mut since) = (Vec::new(), Position::BEFORE_ALL);
    loop {
        let (some, next) = received(&fixture, bob.device_nid, since, 100).await;
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 17, "an answer with {} messages of 60 kB", some.len());
        all.extend(some);
        since = next;
    }
    assert_eq!(all.last(), Some(&79));
    assert!((28..=33).contains(&all.len()), "{} messages of 60 kB", all.len());
    assert_eq!(all, (80 - all.len() as i64..80).collect::<Vec<_>>());
}
