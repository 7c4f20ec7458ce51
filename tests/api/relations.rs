//! Relations to an event ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

fn relations<const N: usize>(room: &str, more: [&str; N], query: &str) -> String {
    let path = more.iter().fold(v3(["rooms", room, "relations"]), |path, segment| {
        let all = v3([segment]);
        path + all.strip_prefix("/_matrix/client/v3").expect("it begins so")
    });
    path.replacen("/v3/", "/v1/", 1) + query
}

fn ids(page: &Value) -> Vec<String> {
    let chunk = page["chunk"].as_array().expect("a checked answer has it");
    chunk.iter().map(|event| event["event_id"].as_str().expect("every event has one").to_owned()).collect()
}

async fn relate(client: &Client, room: &str, txn: &str, (event_type, rel_type, parent): (&str, &str, &str)) -> String {
    let relates_to = json!({ "rel_type": rel_type, "event_id": parent });
    let content = json!({ "msgtype": "m.text", "body": txn, "m.relates_to": relates_to });
    client.send(room, event_type, txn, content).await
}

const MESSAGE: &str = "m.room.message";

both_engines! {
    async fn children_are_listed_by_how_they_relate_and_by_type(mut server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let root = alice.send_text(&room, "root", "root").await;
        let other = alice.send_text(&room, "other", "other").await;
        let reply = relate(&alice, &room, "reply", (MESSAGE, "m.thread", &root)).await;
        let custom = relate(&alice, &room, "custom", ("org.example.cup", "m.thread", &root)).await;
        let edit = relate(&alice, &room, "edit", (MESSAGE, "m.replace", &root)).await;
        relate(&alice, &room, "elsewhere", (MESSAGE, "m.thread", &other)).await;
        let in_reply_to = json!({ "m.in_reply_to": { "event_id": root } });
        alice.send(&room, MESSAGE, "plain", json!({ "msgtype": "m.text", "body": "x", "m.relates_to": in_reply_to })).await;

        server.restart().await;
        let all = alice.get(&relations(&room, [&root], "")).await.ok();
        assert_eq!(ids(&all), [edit.as_str(), &custom, &reply]);
        assert!(all.get("next_batch").is_none() && all.get("recursion_depth").is_none(), "{all}");
        assert_eq!(all["chunk"][2]["content"]["body"], "reply");
        assert_eq!(all["chunk"][2]["room_id"], room.as_str());
        let page = alice.get(&relations(&room, [&root, "m.thread"], "?dir=f")).await.ok();
        assert_eq!(ids(&page), [reply.as_str(), &custom]);
        let page = alice.get(&relations(&room, [&root, "m.thread", MESSAGE], "")).await.ok();
        assert_eq!(ids(&page), [reply.as_str()]);
        for nothing in [[&root, "m.annotation"], [reply.as_str(), "m.thread"]] {
            assert!(ids(&alice.get(&relations(&room, nothing, "")).await.ok()).is_empty(), "{nothing:?}");
        }
        // A redacted event has no relation any more.
        alice.put(&v3(["rooms", &room, "redact", &edit, "t"]), json!({})).await.ok();
        assert_eq!(ids(&alice.get(&relations(&room, [&root], "")).await.ok()), [custom.as_str(), &reply]);
    }

    async fn a_reaction_is_sent_once_until_it_is_redacted(mut server: TestServer) {
        let (alice, bob) = (server.register("alice").await, server.register("bob").await);
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        let (parent, other) = (alice.send_text(&room, "p", "tea?").await, alice.send_text(&room, "o", "cake?").await);
        let react = async |who: &Client, txn: &str, (event_type, parent, key): (&str, &str, &str)| {
            let relates_to = json!({ "rel_type": "m.annotation", "event_id": parent, "key": key });
            let path = v3(["rooms", &room, "send", event_type, txn]);
            who.put(&path, json!({ "m.relates_to": relates_to })).await
        };
        let yes = ("m.reaction", parent.as_str(), "yes");
        let first = react(&alice, "1", yes).await.ok()["event_id"].as_str().expect("checked").to_owned();
        assert_eq!(react(&alice, "1", yes).await.ok()["event_id"], first.as_str(), "a repeated request is none");
        for again in ["2", "3"] {
            react(&alice, again, yes).await.error(400, "M_DUPLICATE_ANNOTATION");
            server.restart().await;
        }
        // Another user, key, event or type makes it a different reaction.
        react(&bob, "1", yes).await.ok();
        react(&alice, "4", ("m.reaction", &parent, "no")).await.ok();
        react(&alice, "5", ("m.reaction", &other, "yes")).await.ok();
        react(&alice, "6", ("org.example.vote", &parent, "yes")).await.ok();
        let mut sent = first;
        for round in ["a", "b"] {
            alice.put(&v3(["rooms", &room, "redact", &sent, round]), json!({})).await.ok();
            sent = react(&alice, round, yes).await.ok()["event_id"].as_str().expect("checked").to_owned();
            react(&alice, "7", yes).await.error(400, "M_DUPLICATE_ANNOTATION");
        }
    }

    async fn pages_follow_each_other_in_both_directions(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let root = alice.send_text(&room, "root", "root").await;
        let mut sent = Vec::new();
        let mut token = String::new();
        for number in 0..10 {
            sent.push(relate(&alice, &room, &format!("t{number}"), (MESSAGE, "m.thread", &root)).await);
            alice.send_text(&room, &format!("between{number}"), "between").await;
            if number == 4 {
                token = alice.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
            }
        }
        for (dir, expected) in [("b", sent.iter().rev().cloned().collect::<Vec<_>>()), ("f", sent.clone())] {
            let (mut found, mut from) = (Vec::new(), String::new());
            loop {
                let page = alice.get(&relations(&room, [&root], &format!("?limit=3&dir={dir}{from}"))).await.ok();
                found.extend(ids(&page));
                let Some(next) = page["next_batch"].as_str() else { break };
                assert!(found.len() <= sent.len(), "the walk does not end");
                from = format!("&from={next}");
            }
            assert_eq!(found, expected, "{dir}");
        }
        // A token of /sync can be used as a place too, and the other direction starts where a page started.
        let page = alice.get(&relations(&room, [&root], &format!("?dir=f&limit=3&from={token}"))).await.ok();
        assert_eq!(ids(&page), sent[5..8]);
        let before = page["prev_batch"].as_str().expect("it began somewhere");
        assert_eq!(ids(&alice.get(&relations(&room, [&root], &format!("?from={before}"))).await.ok()).len(), 5);
        let page = alice.get(&relations(&room, [&root], &format!("?to={token}"))).await.ok();
        assert_eq!(ids(&page).len(), 5);
        for bad in ["?from=x", "?to=x"] {
            alice.get(&relations(&room, [&root], bad)).await.error(400, "M_INVALID_PARAM");
        }
    }

    async fn indirect_relations_are_followed_three_steps(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let root = alice.send_text(&room, "root", "root").await;
        let reply = relate(&alice, &room, "1", (MESSAGE, "m.thread", &root)).await;
        let reaction = relate(&alice, &room, "2", ("m.reaction", "m.annotation", &reply)).await;
        let third = relate(&alice, &room, "3", (MESSAGE, "m.reference", &reaction)).await;
        relate(&alice, &room, "4", (MESSAGE, "m.reference", &third)).await;
        assert_eq!(ids(&alice.get(&relations(&room, [&root], "")).await.ok()), [reply.as_str()]);
        let deep = alice.get(&relations(&room, [&root], "?recurse=true")).await.ok();
        assert_eq!(ids(&deep), [third.as_str(), &reaction, &reply]);
        assert_eq!(deep["recursion_depth"], 3);
        let deep = alice.get(&relations(&room, [&root, "m.annotation"], "?recurse=true&dir=f")).await.ok();
        assert_eq!(ids(&deep), [reaction.as_str()]);
        // Events that relate to a redacted one are no longer related to the root.
        alice.put(&v3(["rooms", &room, "redact", &reaction, "t"]), json!({})).await.ok();
        let deep = alice.get(&relations(&room, [&root], "?recurse=true")).await.ok();
        assert_eq!(ids(&deep), [reply.as_str()]);
    }

    async fn pages_of_direct_and_indirect_relations_come_in_one_order(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let root = alice.send_text(&room, "root", "root").await;
        let (mut sent, mut parents) = (Vec::new(), vec![root.clone()]);
        for number in 0..12 {
            // The parents alternate: the root, an event that relates to it, and so on.
            let parent = parents[number % 3 % parents.len()].clone();
            let event = relate(&alice, &room, &number.to_string(), (MESSAGE, "m.reference", &parent)).await;
            if parents.len() < 3 {
                parents.push(event.clone());
            }
            sent.push(event);
        }
        for (dir, expected) in [("b", sent.iter().rev().cloned().collect::<Vec<_>>()), ("f", sent.clone())] {
            for limit in [1, 5, 50] {
                let (mut found, mut from) = (Vec::new(), String::new());
                loop {
                    let query = format!("?recurse=true&limit={limit}&dir={dir}{from}");
                    let page = alice.get(&relations(&room, [&root], &query)).await.ok();
                    found.extend(ids(&page));
                    let Some(next) = page["next_batch"].as_str() else { break };
                    assert!(found.len() <= sent.len(), "the walk does not end");
                    from = format!("&from={next}");
                }
                assert_eq!(found, expected, "{dir}, {limit} at once");
            }
        }
    }

    async fn nobody_learns_of_events_that_they_may_not_see(server: TestServer) {
        let alice = server.register("alice").await;
        let bob = server.register("bob").await;
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        let early = alice.send_text(&room, "early", "early").await;
        relate(&alice, &room, "1", (MESSAGE, "m.thread", &early)).await;
        alice.set_state(&room, "m.room.history_visibility", "", json!({ "history_visibility": "joined" })).await;
        let hidden = alice.send_text(&room, "hidden", "hidden").await;
        bob.get(&relations(&room, [&early], "")).await.error(404, "M_NOT_FOUND");
        relate(&alice, &room, "2", (MESSAGE, "m.thread", &early)).await;
        bob.join(&room).await;
        let seen = relate(&alice, &room, "3", (MESSAGE, "m.thread", &early)).await;
        let to_hidden = relate(&alice, &room, "4", (MESSAGE, "m.thread", &hidden)).await;
        bob.get(&relations(&room, [&hidden], "")).await.error(404, "M_NOT_FOUND");
        assert_eq!(ids(&alice.get(&relations(&room, [&hidden], "")).await.ok()), [to_hidden]);
        let all = ids(&bob.get(&relations(&room, [&early], "")).await.ok());
        assert_eq!((all.len(), all.first()), (2, Some(&seen)));
        bob.get(&relations(&room, ["$none"], "")).await.error(404, "M_NOT_FOUND");
        bob.get(&relations("!none:sabha.test", [&early], "")).await.error(404, "M_NOT_FOUND");
        // Events of ignored users are hidden too.
        let ignored = json!({ "ignored_users": { alice.user_id.as_str(): {} } });
        bob.put(&v3(["user", &bob.user_id, "account_data", "m.ignored_user_list"]), ignored).await.ok();
        assert!(ids(&bob.get(&relations(&room, [&early], "")).await.ok()).is_empty());
    }

    async fn what_cannot_be_a_relation_is_sent_all_the_same(server: TestServer) {
        let alice = server.register("alice").await;
        let room = alice.create_room(json!({})).await;
        let root = alice.send_text(&room, "root", "root").await;
        for (number, relates_to) in [
            json!({ "rel_type": "a\0b", "event_id": root }),
            json!({ "rel_type": "", "event_id": root }),
            json!({ "rel_type": "m.thread", "event_id": format!("{root}\0") }),
            json!({ "rel_type": "x".repeat(300), "event_id": root }),
            json!({ "rel_type": 7, "event_id": root }),
            json!("m.thread"),
        ].into_iter().enumerate() {
            let content = json!({ "msgtype": "m.text", "body": "x", "m.relates_to": relates_to });
            alice.send(&room, MESSAGE, &format!("t{number}"), content).await;
        }
        assert!(ids(&alice.get(&relations(&room, [&root], "")).await.ok()).is_empty());
    }
}
