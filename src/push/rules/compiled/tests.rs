//! Our verdicts compared with ruma's, and tests of what only ours can do.

use std::collections::BTreeMap;

use ruma::{
    RoomVersionId, UserId, owned_room_id, owned_user_id,
    power_levels::NotificationPowerLevels,
    push::{
        Action, FlattenedJson, NewPatternedPushRule, NewSimplePushRule, PushConditionPowerLevelsCtx,
        PushConditionRoomCtx, RuleKind, SoundTweakValue, Tweak,
    },
    room_version_rules::RoomPowerLevelsRules,
    serde::Raw,
    uint, user_id,
};
use serde_json::json;

use super::*;
use crate::push::rules::defaults;

fn levels() -> PushConditionPowerLevelsCtx {
    let rules = RoomVersionId::V11.rules().expect("a known version");
    PushConditionPowerLevelsCtx::new(
        BTreeMap::from([(owned_user_id!("@mod:x"), 50.into())]),
        0.into(),
        NotificationPowerLevels::new(),
        RoomPowerLevelsRules::new(&rules.authorization, []),
    )
}

/// The server's rules, enabled, and one of each kind that users may add.
fn ruleset(user_id: &UserId) -> Ruleset {
    let match_of = |key: &str, pattern: &str| json!({ "kind": "event_match", "key": key, "pattern": pattern });
    let rule = |id: &str, conditions: Value| {
        json!({ "rule_id": id, "default": false, "enabled": true, "conditions": conditions,
            "actions": ["notify", { "set_tweak": "highlight" }] })
    };
    let word = |id: &str, pattern: &str, enabled: bool, default: bool| {
        json!({ "rule_id": id, "default": default, "enabled": enabled, "pattern": pattern,
            "actions": ["notify", { "set_tweak": "highlight" }] })
    };
    let mute = |id: &str| json!({ "rule_id": id, "default": false, "enabled": true, "actions": [] });
    let mut added: Ruleset = serde_json::from_value(json!({
        "override": [
            rule("type", json!([match_of("type", "org.example.*"), match_of("content.who", "A?ice")])),
            rule("dotted", json!([match_of("content.a\\.b.c\\\\d", "yes")])),
            rule("count", json!([match_of("type", "org.count"), { "kind": "room_member_count", "is": ">2" }])),
            rule("unknown", json!([{ "kind": "org.example.unknown" }])),
            rule("contains", json!([
                { "kind": "event_property_contains", "key": "content.list", "value": 7 }])),
            rule("null", json!([{ "kind": "event_property_is", "key": "content.nothing", "value": null }])),
            rule("true", json!([{ "kind": "event_property_is", "key": "content.yes", "value": true }])),
            rule("room", json!([match_of("content.body", "@room"),
                { "kind": "sender_notification_permission", "key": "room" }])),
        ],
        "content": [
            word("cake", "cake", true, false),
            word("castle", "ca*le", true, false),
            word("what", "wh?t", true, false),
            word("off", "off", false, false),
        ],
        "room": [mute("!quiet:x")],
        "sender": [mute("@bot:x")],
    }))
    .expect("rules");
    added.update_with_server_default(defaults::server_default(user_id));
    added
}

/// The verdict for the owner of the rules, from a judgement that was made with the rules of `judge`.
async fn verdict(
    (judge, rules): (&CompiledRules, &CompiledRules),
    event: &Value,
    asked: &Asked<'_>,
    display_name: Option<&Glob>,
    steps: &mut usize,
) -> Verdict {
    let judgement = judge.judge(event, asked, steps).await;
    assert!(
        rules.asks_display_name(&judgement) || display_name.is_none() || {
            let without = rules.settle(&judgement, None, &mut 0).await;
            without == rules.settle(&judgement, display_name, &mut 0).await
        }
    );
    rules.settle(&judgement, display_name, steps).await
}

#[tokio::test]
async fn verdicts_are_those_of_ruma_whoever_of_the_class_is_judged_for() {
    let levels = levels();
    let users =
        [(owned_user_id!("@alice:x"), "Ally W."), (owned_user_id!("@carol:x"), "Look")].map(|(user_id, name)| {
            let ruleset = ruleset(&user_id);
            let compiled = CompiledRules::new(&ruleset);
            (user_id, name, ruleset, compiled)
        });
    let [(.., of_alice), (.., of_carol)] = &users;
    assert_eq!(of_alice.class(), of_carol.class());
    let mut seen = BTreeMap::new();
    let text = |body: &str| ("m.room.message", json!({ "msgtype": "m.text", "body": body }));
    let contents = [
        text("hello"),
        text("CAKE!"),
        text("pancakes"),
        text("pancakes, cake"),
        text("a castle"),
        text("castles"),
        text("wh\u{e9}t is that"),
        text("whét"),
        text("what"),
        text("switched off"),
        text("alice: look"),
        text("malice"),
        text("is Ally W. here?"),
        text("@room look"),
        text(""),
        ("m.room.message", json!({ "msgtype": "m.notice", "body": "cake" })),
        ("m.room.message", json!({ "body": "alice", "m.mentions": {} })),
        ("m.room.message", json!({ "body": "Ally W.", "m.mentions": {} })),
        ("m.room.message", json!({ "body": "x", "m.mentions": { "user_ids": ["@alice:x"] } })),
        ("m.room.message", json!({ "body": "x", "m.mentions": { "user_ids": ["@other:x"] } })),
        ("m.room.message", json!({ "body": "x", "m.mentions": { "room": true } })),
        ("m.room.message", json!({ "body": "x", "m.relates_to": { "rel_type": "m.replace", "event_id": "$e" } })),
        ("m.room.message", json!({ "body": ["cake"] })),
        ("m.room.encrypted", json!({ "ciphertext": "x" })),
        ("m.room.topic", json!({ "topic": "cake" })),
        ("m.room.tombstone", json!({ "body": "cake" })),
        ("m.room.server_acl", json!({})),
        ("m.reaction", json!({ "m.relates_to": { "rel_type": "m.annotation", "key": "a" } })),
        ("m.call.invite", json!({})),
        ("m.room.member", json!({ "membership": "invite" })),
        ("m.room.member", json!({ "membership": "join" })),
        ("org.example.thing", json!({ "who": "ALICE" })),
        ("org.example.thing", json!({ "who": "Bob" })),
        ("org.count", json!({})),
        ("x", json!({ "a.b": { "c\\d": "yes" } })),
        ("x", json!({ "a": { "b": { "c\\d": "yes" } } })),
        ("x", json!({ "list": [1, "7", 7] })),
        ("x", json!({ "list": [1, "7"] })),
        ("x", json!({ "nothing": null })),
        ("x", json!({ "yes": true })),
        ("x", json!({ "yes": "true", "nothing": 0 })),
    ];
    for (event_type, content) in &contents {
        for (sender, room_id) in [("@bob:x", "!r:x"), ("@mod:x", "!r:x"), ("@bot:x", "!r:x"), ("@bob:x", "!quiet:x")] {
            for (members, state_key) in [(2_u32, None), (3, None), (3, Some("")), (3, Some("@alice:x"))] {
                let mut event = json!({ "type": event_type, "sender": sender, "room_id": room_id, "content": content });
                if let Some(state_key) = state_key {
                    event["state_key"] = json!(state_key);
                }
                let room = if room_id == "!r:x" { owned_room_id!("!r:x") } else { owned_room_id!("!quiet:x") };
                let flat = FlattenedJson::from_raw(&Raw::new(&event).expect("it is JSON"));
                for (user_id, name, ruleset, compiled) in &users {
                    let context =
                        PushConditionRoomCtx::new(room.clone(), members.into(), user_id.clone(), (*name).to_owned())
                            .with_power_levels(levels.clone());
                    let mut expected = Verdict::default();
                    for rule in ruleset {
                        if rule.applies(&flat, &context).await {
                            let notify = rule.triggers_notification();
                            expected = Verdict { notify, highlight: notify && rule.triggers_highlight() };
                            break;
                        }
                    }
                    let asked = Asked { members: members.into(), power_levels: Some(&levels) };
                    let name = Glob::literal(&name.to_lowercase());
                    for judge in [of_alice, of_carol] {
                        let verdict = verdict((judge, compiled), &event, &asked, name.as_ref(), &mut 0).await;
                        assert_eq!(verdict, expected, "{user_id}, {members} members, {event}");
                    }
                    *seen.entry((expected.notify, expected.highlight)).or_insert(0) += 1;
                }
            }
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}: the table has all kinds of answers");
}

#[test]
fn rules_are_of_one_class_if_only_the_user_differs() {
    let class = |ruleset: &Ruleset| CompiledRules::new(ruleset).class();
    let (alice, bob) = (user_id!("@alice:x"), user_id!("@bob:x"));
    let defaults = defaults::server_default(alice);
    let check = |expected: bool, what: &str, change: &dyn Fn(&mut Ruleset)| {
        let mut changed = defaults::server_default(bob);
        change(&mut changed);
        assert_eq!(class(&changed) == class(&defaults), expected, "{what}");
    };
    let word = |pattern: &str| {
        let actions = vec![Action::Notify];
        NewPushRule::Content(NewPatternedPushRule::new("word".to_owned(), pattern.to_owned(), actions))
    };
    let put = |rule: NewPushRule| move |ruleset: &mut Ruleset| ruleset.insert(rule.clone(), None, None).expect("added");
    check(true, "the same rules", &|_| {});
    check(true, "another sound", &|ruleset| {
        let loud = vec![Action::Notify, Action::SetTweak(Tweak::Sound(SoundTweakValue::from("bell".to_owned())))];
        ruleset.set_actions(RuleKind::Underride, ".m.rule.message", loud).expect("it exists");
    });
    check(false, "no notification", &|ruleset| {
        ruleset.set_actions(RuleKind::Underride, ".m.rule.message", vec![]).expect("it exists");
    });
    check(false, "a rule is off", &|ruleset| {
        ruleset.set_enabled(RuleKind::Content, ".m.rule.contains_user_name", false).expect("it exists");
    });
    check(false, "a word", &put(word("cake")));
    check(false, "the own name as a word", &put(word("bob")));
    let room = NewSimplePushRule::new(owned_room_id!("!r:x"), vec![]);
    check(false, "a quiet room", &put(NewPushRule::Room(room)));
    let mut others = [defaults::server_default(alice), defaults::server_default(bob)];
    for ruleset in &mut others {
        put(word("cake"))(ruleset);
    }
    assert_eq!(class(&others[0]), class(&others[1]), "the same word");
}

/// Names are searched only in an event without `m.mentions`.
#[tokio::test]
async fn names_in_a_body_are_mentions_where_nothing_says_who_is_mentioned() {
    let compiled = CompiledRules::new(&defaults::server_default(user_id!("@alice:x")));
    let (levels, name) = (levels(), Glob::literal("ally w."));
    let check = async |sender: &str, content: Value, expected: bool| {
        let event = json!({ "type": "m.room.message", "sender": sender, "room_id": "!r:x", "content": content });
        let asked = Asked { members: uint!(3), power_levels: Some(&levels) };
        let verdict = verdict((&compiled, &compiled), &event, &asked, name.as_ref(), &mut 0).await;
        assert_eq!((verdict.notify, verdict.highlight), (true, expected), "{event}");
    };
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    let mentions = |body: &str, mentions: Value| json!({ "msgtype": "m.text", "body": body, "m.mentions": mentions });
    check("@bob:x", text("nobody"), false).await;
    check("@bob:x", text("Alice: look"), true).await;
    check("@bob:x", text("malice"), false).await;
    check("@bob:x", text("is ally w. here?"), true).await;
    check("@bob:x", text("ALLY W."), true).await;
    check("@bob:x", text("@room look"), false).await;
    check("@mod:x", text("@room look"), true).await;
    check("@mod:x", text("the room"), false).await;
    // An event with `m.mentions` mentions nobody else.
    check("@bob:x", mentions("Alice: look", json!({})), false).await;
    check("@bob:x", mentions("Ally W.", json!({ "user_ids": [] })), false).await;
    check("@bob:x", mentions("Ally W.", json!(null)), false).await;
    check("@mod:x", mentions("@room look", json!({})), false).await;
    check("@mod:x", mentions("look", json!({ "room": true })), true).await;
    check("@bob:x", mentions("look", json!({ "user_ids": ["@alice:x"] })), true).await;
}

fn words(patterns: impl IntoIterator<Item = String>) -> Ruleset {
    let rule = |(number, pattern): (usize, String)| {
        json!({ "rule_id": number.to_string(), "default": false, "enabled": true, "pattern": pattern,
            "actions": ["notify", { "set_tweak": "highlight" }] })
    };
    let rules: Vec<Value> = patterns.into_iter().enumerate().map(rule).collect();
    serde_json::from_value(json!({ "content": rules })).expect("rules")
}

/// Returns whether an event is highlighted, and the number of steps of the evaluation.
async fn hold(ruleset: &Ruleset, content: Value) -> (bool, usize) {
    let event = json!({ "type": "m.room.message", "sender": "@bob:x", "content": content });
    let asked = Asked { members: uint!(3), power_levels: None };
    let (rules, mut steps) = (CompiledRules::new(ruleset), 0);
    let verdict = verdict((&rules, &rules), &event, &asked, None, &mut steps).await;
    (verdict.highlight, steps)
}

async fn highlights(ruleset: &Ruleset, body: &str) -> bool {
    hold(ruleset, json!({ "body": body })).await.0
}

#[tokio::test]
async fn a_body_of_many_words_takes_no_stack() {
    let ruleset = words(["b".to_owned()]);
    let words = "ab ".repeat(MAX_TEXT_BYTES / 3);
    assert!(!highlights(&ruleset, &words).await);
    assert!(highlights(&ruleset, &(words + "b")).await);
}

#[tokio::test]
async fn long_texts_match_by_their_beginning() {
    let ruleset = words(["b".to_owned()]);
    let check = async |before: &str, times: usize, expected: bool| {
        let body = before.repeat(times) + " b";
        assert_eq!(highlights(&ruleset, &body).await, expected, "{times} times {before}");
    };
    check("a", MAX_TEXT_BYTES - 2, true).await;
    check("a", MAX_TEXT_BYTES, false).await;
    check("é", MAX_TEXT_BYTES / 2 - 1, true).await;
    // These are cut inside a character.
    check("€", MAX_TEXT_BYTES / 3 + 1, false).await;
    check("İ", MAX_TEXT_BYTES, false).await;
}

#[tokio::test]
async fn work_is_counted_and_does_not_grow_with_the_text() {
    // The slowest possible patterns: each reads the whole text.
    let pattern = "?a".repeat(256);
    let words_of_pattern = Glob::new(&pattern).expect("it is short enough").words();
    let ruleset = words(std::iter::repeat_n(pattern, 55));
    let steps = async |length: usize| hold(&ruleset, json!({ "body": "a".repeat(length) })).await.1;
    let of_rule = |length: usize| WORK_OF_PART + length * words_of_pattern;
    assert_eq!(steps(1_000).await, 55 * of_rule(1_000));
    assert_eq!(steps(60_000).await, 55 * of_rule(MAX_TEXT_BYTES));

    let contains = json!({ "kind": "event_property_contains", "key": "content.list", "value": 7 });
    let rule = json!({ "rule_id": "r", "default": false, "enabled": true, "conditions": [contains], "actions": [] });
    let ruleset: Ruleset = serde_json::from_value(json!({ "override": [rule] })).expect("rules");
    let list = vec![1; 20_000];
    assert_eq!(hold(&ruleset, json!({ "list": list })).await.1, WORK_OF_PART + 20_000);
}

#[tokio::test]
async fn what_is_stored_beyond_the_limit_is_left_out() {
    let long = "?a".repeat(256);
    let fit = MAX_WORK / (WORK_OF_PART + long.len());
    let patterns = |first: usize| std::iter::repeat_n(long.clone(), first).chain(["cake".to_owned()]);
    assert!(highlights(&words(patterns(fit)), "cake").await);
    assert!(!highlights(&words(patterns(500)), "cake").await);
    let compiled = CompiledRules::new(&words(patterns(500)));
    assert_eq!(compiled.rules.len(), fit);
    assert!(compiled.bytes() < 20 * MAX_WORK, "{}", compiled.bytes());
}

#[tokio::test]
async fn others_run_while_long_patterns_are_matched() {
    let ruleset = words(std::iter::repeat_n("?a".repeat(256), 50));
    let body = "aa ".repeat(10_000);
    let others = tokio::spawn(async {});
    assert!(!highlights(&ruleset, &body).await);
    assert!(others.is_finished(), "one thread runs both, and the other had its turn");
}
