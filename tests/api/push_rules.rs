//! Push rules ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules-api

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

/// The only content rule that every user has.
const USER_NAME: &str = ".m.rule.contains_user_name";

fn rule(kind: &str, rule_id: &str) -> String {
    v3(["pushrules", "global", kind, rule_id])
}

fn word(pattern: &str) -> Value {
    json!({ "pattern": pattern, "actions": ["notify"] })
}

async fn order(client: &Client, kind: &str) -> Vec<String> {
    let all = client.get("/_matrix/client/v3/pushrules/global/").await.ok();
    let rules = all[kind].as_array().expect("every kind is there");
    rules.iter().map(|rule| rule["rule_id"].as_str().expect("a checked answer has it").to_owned()).collect()
}

fn synced(answer: &Value) -> Option<&Value> {
    let events = answer["account_data"]["events"].as_array()?;
    events.iter().find(|event| event["type"] == "m.push_rules").map(|event| &event["content"])
}

both_engines! {
    async fn rules_are_added_changed_and_removed(server: TestServer) {
        let mut server = server;
        let alice = server.register("alice").await;
        alice.put(&rule("content", "a"), word("apple")).await.ok();
        alice.put(&rule("content", "b"), word("berry")).await.ok();
        alice.put(&(rule("content", "c") + "?after=b"), word("cherry")).await.ok();
        assert_eq!(order(&alice, "content").await, ["b", "c", "a", USER_NAME]);
        alice.put(&(rule("content", "b") + "?after=a"), word("berry")).await.ok();
        alice.put(&(rule("content", "b") + "/enabled"), json!({ "enabled": false })).await.ok();
        alice.put(&(rule("content", "a") + "/actions"), json!({ "actions": [] })).await.ok();
        alice.delete(&rule("content", "c"), json!({})).await.ok();

        server.restart().await;
        assert_eq!(order(&alice, "content").await, ["a", "b", USER_NAME]);
        let b = json!({ "rule_id": "b", "default": false, "enabled": false, "pattern": "berry", "actions": ["notify"] });
        assert_eq!(alice.get(&rule("content", "b")).await.ok(), b);
        assert_eq!(alice.get(&(rule("content", "b") + "/enabled")).await.ok(), json!({ "enabled": false }));
        assert_eq!(alice.get(&(rule("content", "a") + "/actions")).await.ok(), json!({ "actions": [] }));
    }

    async fn changed_rules_are_synced(server: TestServer) {
        let alice = server.register("alice").await;
        let everything = alice.sync(None).await;
        let defaults = synced(&everything).expect("everyone has push rules");
        assert_eq!(defaults, &alice.get("/_matrix/client/v3/pushrules/").await.ok());
        alice.put(&(rule("override", ".m.rule.master") + "/enabled"), json!({ "enabled": true })).await.ok();
        let news = alice.sync(everything["next_batch"].as_str()).await;
        let changed = synced(&news).expect("they changed");
        assert_eq!(changed["global"]["override"][0]["enabled"], true);
        assert_eq!(changed, &alice.get("/_matrix/client/v3/pushrules/").await.ok());
        assert_eq!(changed, &alice.get(&v3(["user", &alice.user_id, "account_data", "m.push_rules"])).await.ok());
    }
}

/// Element mutes a room with such a rule, and other servers accept it.
#[tokio::test]
async fn a_rule_without_conditions_has_none() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    for kind in ["override", "underride"] {
        alice.put(&rule(kind, "x"), json!({ "actions": [] })).await.ok();
        let expected = json!({ "rule_id": "x", "default": false, "enabled": true, "conditions": [], "actions": [] });
        assert_eq!(alice.get(&rule(kind, "x")).await.ok(), expected);
        alice.put(&rule(kind, "y"), json!({ "actions": [], "conditions": [] })).await.ok();
        alice.put(&rule(kind, "z"), json!({ "actions": [], "conditions": 7 })).await.error(400, "M_BAD_JSON");
        alice.put(&rule(kind, "z"), json!({ "conditions": [] })).await.error(400, "M_MISSING_PARAM");
        alice.put(&rule(kind, "z"), json!([])).await.error(400, "M_BAD_JSON");
    }
    // A content rule without a pattern would have no meaning.
    alice.put(&rule("content", "z"), json!({ "actions": [] })).await.error(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    let nobody = rule("content", "nobody");
    alice.get(&nobody).await.error(404, "M_NOT_FOUND");
    alice.get(&(nobody.clone() + "/enabled")).await.error(404, "M_NOT_FOUND");
    alice.get(&(nobody.clone() + "/actions")).await.error(404, "M_NOT_FOUND");
    alice.put(&(nobody.clone() + "/enabled"), json!({ "enabled": true })).await.error(404, "M_NOT_FOUND");
    alice.put(&(nobody.clone() + "/actions"), json!({ "actions": [] })).await.error(404, "M_NOT_FOUND");
    alice.delete(&nobody, json!({})).await.error(404, "M_NOT_FOUND");
    alice.put(&(rule("content", "a") + "?before=nobody"), word("apple")).await.error(400, "M_UNKNOWN");
}

#[tokio::test]
async fn the_rules_of_the_server_stay() {
    let server = TestServer::start().await;
    let alice = server.register("alice").await;
    alice.delete(&rule("override", ".m.rule.master"), json!({})).await.error(400, "M_INVALID_PARAM");
    alice.put(&rule("content", ".m.rule.mine"), word("apple")).await.error(400, "M_INVALID_PARAM");
    alice.put(&rule("content", "long"), word(&"x".repeat(513))).await.error(400, "M_INVALID_PARAM");
    assert_eq!(order(&alice, "override").await[0], ".m.rule.master");
}
