//! Every field of every object of a filter, and its effect on an answer of `/sync` ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter_request_filter

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    Client, TestServer,
    follower::{events, rooms},
    v3,
};

/// The users and rooms of a test, with something of every kind in them.
struct Scene {
    alice: Client,
    bob: Client,
    one: String,
    two: String,
    gone: String,
}

async fn scene(server: &TestServer) -> Scene {
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut made = Vec::new();
    for name in ["one", "two", "gone"] {
        let room = bob.create_room(json!({ "preset": "public_chat", "name": name })).await;
        alice.join(&room).await;
        made.push(room);
    }
    let [one, two, gone] = <[String; 3]>::try_from(made).expect("three rooms");
    alice.leave(&gone).await;
    for room in [&one, &two] {
        alice
            .put(&v3(["user", &alice.user_id, "rooms", room, "account_data", "org.note"]), json!({ "url": "x" }))
            .await
            .ok();
        alice.put(&v3(["user", &alice.user_id, "rooms", room, "account_data", "org.mark"]), json!({})).await.ok();
        bob.send(room, "m.room.message", "1", json!({ "msgtype": "m.image", "body": "i", "url": "mxc://a/b" })).await;
        let last = alice.send(room, "org.text", "2", json!({ "body": "t" })).await;
        bob.post(&v3(["rooms", room, "receipt", "m.read", &last]), json!({})).await.ok();
        bob.put(&v3(["rooms", room, "typing", &bob.user_id]), json!({ "typing": true, "timeout": 100_000 })).await.ok();
    }
    alice.put(&v3(["user", &alice.user_id, "account_data", "org.own"]), json!({})).await.ok();
    bob.sync(None).await;
    Scene { alice, bob, one, two, gone }
}

impl Scene {
    /// Returns the facts in an answer, such as `room timeline bob m.room.message` or `presence bob`, without state in
    /// the timeline.
    async fn told(&self, filter: &Value) -> BTreeSet<String> {
        let filter = v3([&filter.to_string()]);
        let filter = filter.rsplit('/').next().expect("one segment");
        let answer = self.alice.sync_with(None, &format!("timeout=0&filter={filter}")).await;
        let name = |user: &Value| if *user == self.bob.user_id { "bob" } else { "alice" };
        let kind = |event: &Value| event["type"].as_str().expect("it has one").to_owned();
        let mut told = BTreeSet::new();
        told.extend(events(&answer["account_data"]).iter().map(|event| format!("account {}", kind(event))));
        told.extend(events(&answer["presence"]).iter().map(|event| format!("presence {}", name(&event["sender"]))));
        for (section, room_id, room) in ["join", "leave"]
            .iter()
            .flat_map(|section| rooms(&answer, section).into_iter().map(move |(id, room)| (section, id, room)))
        {
            let room_name = match room_id {
                id if *id == self.one => "one",
                id if *id == self.two => "two",
                id => {
                    assert_eq!((id.as_str(), *section), (self.gone.as_str(), "leave"));
                    "gone"
                }
            };
            told.insert(room_name.to_owned());
            for event in events(&room["state"]) {
                told.insert(format!("{room_name} state {} {}", name(&event["sender"]), kind(event)));
            }
            for event in events(&room["timeline"]).iter().filter(|event| event.get("state_key").is_none()) {
                told.insert(format!("{room_name} timeline {} {}", name(&event["sender"]), kind(event)));
            }
            for part in ["ephemeral", "account_data"] {
                told.extend(events(&room[part]).iter().map(|event| format!("{room_name} {part} {}", kind(event))));
            }
        }
        told
    }
}

both_engines! {
    async fn every_field_of_a_filter_does_what_the_specification_says(server: TestServer) {
        let scene = scene(&server).await;
        let (alice, bob, one, two) = (&scene.alice.user_id, &scene.bob.user_id, &scene.one, &scene.two);
        // State is kept out of the timeline, so that filters of one do not move events to the other.
        let state = ["m.room.member", "m.room.c*", "m.room.p*", "m.room.j*", "m.room.h*", "m.room.g*", "m.room.na*"];
        let with = |extra: Value| {
            let mut filter = json!({ "room": { "timeline": { "not_types": state } } });
            merge(&mut filter, extra);
            filter
        };
        let all = scene.told(&with(json!({}))).await;
        for expected in [
            "account org.own", "account m.push_rules", "presence bob", "one", "two", "one state bob m.room.name",
            "one state alice m.room.member", "one state bob m.room.member", "one timeline bob m.room.message",
            "one timeline alice org.text", "one ephemeral m.receipt", "one ephemeral m.typing", "one account_data org.note",
            "two account_data org.mark",
        ] {
            assert!(all.contains(expected), "{expected} is missing in {all:#?}");
        }
        assert!(!all.contains("gone"), "{all:#?}");

        // Each filter removes the facts that contain one of these words, and nothing else.
        let nothing: &[&str] = &[];
        let checks: Vec<(Value, &[&str])> = vec![
            // Filter
            (json!({ "event_fields": ["type", "sender", "state_key", "content"] }), nothing),
            (json!({ "event_format": "client" }), nothing),
            // EventFilter, for presence
            (json!({ "presence": { "types": ["m.presence"] } }), nothing),
            (json!({ "presence": { "types": [] } }), &["presence "]),
            (json!({ "presence": { "types": ["m.pres*"] } }), nothing),
            (json!({ "presence": { "not_types": ["m.presence"] } }), &["presence "]),
            (json!({ "presence": { "senders": [alice] } }), &["presence bob"]),
            (json!({ "presence": { "not_senders": [bob] } }), &["presence bob"]),
            (json!({ "presence": { "senders": [alice, bob], "not_senders": [alice] } }), &["presence alice"]),
            (json!({ "presence": { "limit": 1000 } }), nothing),
            // EventFilter, for account data
            (json!({ "account_data": { "types": ["org.*"] } }), &["account m.push_rules"]),
            (json!({ "account_data": { "not_types": ["org.own"] } }), &["account org.own"]),
            // Account data has no sender.
            (json!({ "account_data": { "senders": [alice] } }), &["account org.own", "account m.push_rules"]),
            (json!({ "account_data": { "not_senders": [alice] } }), nothing),
            (json!({ "account_data": { "limit": 1 } }), nothing),
            // RoomFilter
            (json!({ "room": { "rooms": [one] } }), &["two"]),
            (json!({ "room": { "not_rooms": [one] } }), &["one"]),
            (json!({ "room": { "rooms": [one, two], "not_rooms": [one] } }), &["one"]),
            (json!({ "room": { "include_leave": false } }), nothing),
            // RoomEventFilter, for state
            (json!({ "room": { "state": { "types": ["m.room.member"] } } }), &[" state bob m.room.", "!member"]),
            (json!({ "room": { "state": { "not_types": ["m.room.member"] } } }), &["state bob m.room.member", "state alice m.room.member"]),
            (json!({ "room": { "state": { "senders": [alice] } } }), &[" state bob"]),
            (json!({ "room": { "state": { "not_senders": [bob] } } }), &[" state bob"]),
            (json!({ "room": { "state": { "rooms": [one] } } }), &["two state"]),
            (json!({ "room": { "state": { "not_rooms": [one] } } }), &["one state"]),
            (json!({ "room": { "state": { "contains_url": true } } }), &[" state "]),
            (json!({ "room": { "state": { "contains_url": false } } }), nothing),
            (json!({ "room": { "state": { "limit": 1 } } }), nothing),
            // RoomEventFilter, for the timeline
            (json!({ "room": { "timeline": { "types": ["m.room.message"] } } }), &["timeline alice"]),
            (json!({ "room": { "timeline": { "not_types": ["m.room.*"] } } }), &["timeline bob"]),
            (json!({ "room": { "timeline": { "senders": [bob] } } }), &["timeline alice"]),
            (json!({ "room": { "timeline": { "not_senders": [bob] } } }), &["timeline bob"]),
            (json!({ "room": { "timeline": { "rooms": [one] } } }), &["two timeline"]),
            (json!({ "room": { "timeline": { "not_rooms": [one] } } }), &["one timeline"]),
            (json!({ "room": { "timeline": { "contains_url": true } } }), &["timeline alice"]),
            (json!({ "room": { "timeline": { "contains_url": false } } }), &["timeline bob"]),
            (json!({ "room": { "timeline": { "limit": 1 } } }), &["timeline bob"]),
            (json!({ "room": { "timeline": { "limit": 0 } } }), &["timeline "]),
            (json!({ "room": { "timeline": { "unread_thread_notifications": true } } }), nothing),
            // RoomEventFilter, for ephemeral events
            (json!({ "room": { "ephemeral": { "types": ["m.typing"] } } }), &["m.receipt"]),
            (json!({ "room": { "ephemeral": { "not_types": ["m.typing"] } } }), &["m.typing"]),
            (json!({ "room": { "ephemeral": { "rooms": [one] } } }), &["two ephemeral"]),
            (json!({ "room": { "ephemeral": { "not_rooms": [one] } } }), &["one ephemeral"]),
            (json!({ "room": { "ephemeral": { "senders": [bob] } } }), &["ephemeral"]),
            (json!({ "room": { "ephemeral": { "not_senders": [bob] } } }), nothing),
            (json!({ "room": { "ephemeral": { "contains_url": true } } }), &["ephemeral"]),
            (json!({ "room": { "ephemeral": { "contains_url": false } } }), nothing),
            (json!({ "room": { "ephemeral": { "limit": 1 } } }), nothing),
            // RoomEventFilter, for account data of rooms
            (json!({ "room": { "account_data": { "types": ["org.note"] } } }), &["org.mark"]),
            (json!({ "room": { "account_data": { "not_types": ["org.n*"] } } }), &["org.note"]),
            (json!({ "room": { "account_data": { "rooms": [one] } } }), &["two account_data"]),
            (json!({ "room": { "account_data": { "not_rooms": [one] } } }), &["one account_data"]),
            (json!({ "room": { "account_data": { "senders": [alice] } } }), &["account_data"]),
            (json!({ "room": { "account_data": { "not_senders": [alice] } } }), nothing),
            (json!({ "room": { "account_data": { "contains_url": true } } }), &["org.mark"]),
            (json!({ "room": { "account_data": { "contains_url": false } } }), &["org.note"]),
            (json!({ "room": { "account_data": { "limit": 1 } } }), nothing),
        ];
        for (filter, taken) in checks {
            let told = scene.told(&with(filter.clone())).await;
            let spared: Vec<&str> = taken.iter().filter_map(|word| word.strip_prefix('!')).collect();
            let is_taken = |fact: &String| {
                taken.iter().any(|word| fact.contains(word)) && !spared.iter().any(|word| fact.contains(word))
            };
            let expected: BTreeSet<String> = all.iter().filter(|fact| !is_taken(fact)).cloned().collect();
            assert_eq!(told, expected, "{filter}");
        }
        let with_left = scene.told(&with(json!({ "room": { "include_leave": true } }))).await;
        assert!(with_left.contains("gone"), "{with_left:#?}");
        let lazy = json!({ "room": { "state": { "lazy_load_members": true }, "timeline": { "types": ["org.text"] } } });
        let lazy = scene.told(&lazy).await;
        assert!(lazy.contains("one state alice m.room.member"), "alice spoke: {lazy:#?}");
        assert!(!lazy.contains("one state bob m.room.member"), "bob did not: {lazy:#?}");
    }

    /// Checks filters of `/messages`, `/context` and `/sync`, given with the request and stored.
    async fn events_are_found_by_what_relates_to_them(server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let mut sent = Vec::new();
        for name in ["a", "b", "c", "d"] {
            sent.push((name, alice.send_text(&room, name, name).await));
        }
        let relating = |rel_type: &str, parent: usize| {
            json!({ "body": "x", "msgtype": "m.text", "m.relates_to": { "rel_type": rel_type, "event_id": sent[parent].1, "key": "+" } })
        };
        bob.send(&room, "m.reaction", "5", relating("m.annotation", 0)).await;
        alice.send(&room, "m.room.message", "6", relating("m.thread", 1)).await;
        bob.send(&room, "m.reaction", "7", relating("m.annotation", 1)).await;
        let taken_back = bob.send(&room, "m.reaction", "8", relating("m.annotation", 2)).await;
        bob.put(&v3(["rooms", &room, "redact", &taken_back, "9"]), json!({})).await.ok();

        let encode = |filter: &Value| v3([&filter.to_string()]).rsplit('/').next().expect("one segment").to_owned();
        let names = |events: &[Value]| {
            let found = |id: &String| events.iter().any(|event| event["event_id"] == *id);
            sent.iter().filter(|(_, id)| found(id)).map(|(name, _)| *name).collect::<String>()
        };
        let (by_alice, by_bob) = (&alice.user_id, &bob.user_id);
        let timeline = |answer: &Value| events(&answer["rooms"]["join"][&room]["timeline"]).to_vec();
        for (filter, expected) in [
            (json!({}), "abcd"),
            (json!({ "related_by_rel_types": ["m.annotation"] }), "ab"),
            (json!({ "related_by_rel_types": ["m.thread"] }), "b"),
            (json!({ "related_by_rel_types": ["org.other", "m.thread", "m.annotation"] }), "ab"),
            (json!({ "related_by_rel_types": ["org.other", ""] }), ""),
            (json!({ "related_by_rel_types": [] }), ""),
            (json!({ "related_by_senders": [by_bob] }), "ab"),
            (json!({ "related_by_senders": [by_alice] }), "b"),
            (json!({ "related_by_senders": [by_alice, by_bob] }), "ab"),
            (json!({ "related_by_senders": ["@nobody:sabha.test"] }), ""),
            (json!({ "related_by_senders": [] }), ""),
            // One related event must meet both conditions.
            (json!({ "related_by_senders": [by_bob], "related_by_rel_types": ["m.thread"] }), ""),
            (json!({ "related_by_senders": [by_bob], "related_by_rel_types": ["m.annotation"] }), "ab"),
            // Combined with other fields.
            (json!({ "related_by_senders": [by_bob], "senders": [by_bob] }), ""),
            (json!({ "related_by_senders": [by_bob], "types": ["m.room.message"], "not_senders": [by_bob] }), "ab"),
        ] {
            for direction in ["b", "f"] {
                let path = format!("{}?dir={direction}&limit=100&filter={}", v3(["rooms", &room, "messages"]), encode(&filter));
                let page = alice.get(&path).await.ok();
                assert_eq!(names(page["chunk"].as_array().expect("a page")), expected, "{direction} {filter}: {page}");
            }
            // The event itself is shown whatever the filter.
            let path = format!("{}?limit=100&filter={}", v3(["rooms", &room, "context", &taken_back]), encode(&filter));
            let context = alice.get(&path).await.ok();
            assert_eq!(names(context["events_before"].as_array().expect("a list")), expected, "{filter}: {context}");

            let definition = json!({ "room": { "timeline": filter } });
            let stored = alice.post(&v3(["user", by_alice, "filter"]), definition.clone()).await.ok();
            let id = stored["filter_id"].as_str().expect("a checked answer has it");
            if filter != json!({}) {
                assert_eq!(alice.get(&v3(["user", by_alice, "filter", id])).await.ok(), definition);
            }
            for given in [encode(&definition), id.to_owned()] {
                let answer = alice.sync_with(None, &format!("timeout=0&filter={given}")).await;
                assert_eq!(names(&timeline(&answer)), expected, "{filter} as {given}: {answer}");
            }
        }
        let last = json!({ "related_by_senders": [by_bob], "limit": 1 });
        let answer = alice.sync_with(None, &format!("timeout=0&filter={}", encode(&json!({ "room": { "timeline": last } })))).await;
        assert_eq!(names(&timeline(&answer)), "b", "{answer}");

        let many: Vec<String> = (0..17).map(|n| format!("org.{n}")).collect();
        for (filter, code) in [
            (json!({ "related_by_rel_types": many }), "M_INVALID_PARAM"),
            (json!({ "related_by_senders": "@alice:sabha.test" }), "M_BAD_JSON"),
        ] {
            let definition = json!({ "room": { "timeline": filter } });
            let messages = format!("{}?dir=b&filter={}", v3(["rooms", &room, "messages"]), encode(&filter));
            alice.get(&messages).await.error(400, code);
            alice.get(&format!("{}?filter={}", v3(["rooms", &room, "context", &taken_back]), encode(&filter))).await.error(400, code);
            alice.get(&format!("{}?timeout=0&filter={}", v3(["sync"]), encode(&definition))).await.error(400, code);
            alice.post(&v3(["user", by_alice, "filter"]), definition).await.error(400, code);
        }
    }

    /// Does not use the harness's client, which expects events in the format for clients.
    async fn events_come_as_other_servers_get_them_where_that_is_asked_for(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let sent = alice.send_text(&room, "1", "hello").await;
        for (format, federation) in [("client", false), ("federation", true)] {
            let filter = v3([&json!({ "event_format": format }).to_string()]);
            let filter = filter.rsplit('/').next().expect("one segment");
            let request = reqwest::Client::new().get(format!("{}{}?filter={filter}", server.base(), v3(["sync"])));
            let answer = request.bearer_auth(alice.token.as_ref().expect("a token")).send().await.expect("an answer");
            let answer: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
            let timeline = events(&answer["rooms"]["join"][&room]["timeline"]);
            let last = timeline.last().expect("it was sent");
            assert_eq!(last["content"]["body"], "hello");
            assert_eq!((last.get("hashes").is_some(), last["event_id"] == sent), (federation, !federation), "{last}");
        }
    }

    async fn members_that_are_redundant_come_again_where_they_are_asked_for(server: TestServer) {
        let scene = scene(&server).await;
        for (redundant, again) in [(false, 0), (true, 1)] {
            let state = json!({ "lazy_load_members": true, "include_redundant_members": redundant });
            let filter = v3([&json!({ "room": { "state": state } }).to_string()]);
            let parameters = format!("timeout=0&filter={}", filter.rsplit('/').next().expect("one segment"));
            let first = scene.alice.sync_with(None, &parameters).await;
            scene.bob.send_text(&scene.one, &format!("again-{redundant}"), "hello").await;
            let next = scene.alice.sync_with(first["next_batch"].as_str(), &parameters).await;
            let state = events(&next["rooms"]["join"][&scene.one]["state"]);
            assert_eq!(state.len(), again, "{redundant}: {next}");
        }
    }
}

/// Merges the fields of one object into another, including nested objects.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
