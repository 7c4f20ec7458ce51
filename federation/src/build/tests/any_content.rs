//! Events with any content are what Ruma builds, and are read back.

use proptest::prelude::*;
use ruma::{OwnedEventId, owned_event_id, room_id};
use serde_json::Value as JsonValue;

use super::*;
use crate::{
    PublicKey,
    received::{self, Ed25519, Form},
    rules, supported_room_versions,
};

fn any_json() -> impl Strategy<Value = JsonValue> {
    let leaf = prop_oneof![
        Just(JsonValue::Null),
        any::<bool>().prop_map(JsonValue::from),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(JsonValue::from),
        any::<String>().prop_map(JsonValue::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(JsonValue::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| JsonValue::Object(map.into_iter().collect())),
        ]
    })
}

fn any_type() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "m.room.message",
            "m.room.member",
            "m.room.power_levels",
            "m.room.join_rules",
            "m.room.redaction",
            "m.room.create",
            "m.room.history_visibility",
            "m.room.aliases",
            "m.room.canonical_alias",
        ])
        .prop_map(str::to_owned),
        "[a-z.\"\\\\\u{1}é]{0,40}",
    ]
}

/// Content with some of the keys that redaction keeps, holding anything.
fn any_content() -> impl Strategy<Value = JsonValue> {
    let known = prop::sample::select(vec![
        "membership",
        "third_party_invite",
        "join_rule",
        "allow",
        "users",
        "invite",
        "redacts",
        "creator",
        "aliases",
        "history_visibility",
    ]);
    let key = prop_oneof![known.prop_map(str::to_owned), any::<String>()];
    prop::collection::btree_map(key, any_json(), 0..6).prop_map(|map| JsonValue::Object(map.into_iter().collect()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_content_is_built_as_ruma_builds_it_and_reads_back(
        version in prop::sample::select(supported_room_versions().to_vec()),
        event_type in any_type(),
        state_key in prop::option::of("[ -~é\n]{0,40}"),
        content in any_content(),
        redacts in prop::option::of("\\$[ -~]{1,60}"),
        depth in any::<u64>(),
        origin_server_ts in -9_007_199_254_740_991_i64..=9_007_199_254_740_991,
    ) {
        let rules = rules(&version).unwrap();
        let signer = ServerSigner::generate(ruma::owned_server_name!("example.org"));
        let makes_its_room = event_type == "m.room.create" && rules.authorization.room_create_event_id_as_room_id;
        // `redacts` may name any event, but ruma refuses strings that are no event IDs.
        let redacts = redacts.and_then(|id| OwnedEventId::try_from(id).ok());
        let position = EventPosition {
            room_id: (!makes_its_room).then_some(room_id!("!room:example.org")),
            sender: alice(),
            prev_events: &[owned_event_id!("$prev")],
            auth_events: &[owned_event_id!("$one"), owned_event_id!("$two")],
            depth,
            origin_server_ts,
        };
        let draft = EventDraft {
            event_type,
            state_key,
            content: to_raw_value(&content).unwrap(),
            redacts,
        };
        let event = build_and_sign(&rules, &signer, draft, position).unwrap();
        assert_ruma_builds_the_same(&rules, &signer, &event);
        // A member event may need the signature of another server, which we cannot make.
        if event.event_type != "m.room.member" {
            verify_own(&rules, &event, &signer).unwrap();
            // Other servers accept it as it is.
            let json = RawValue::from_string(event.json.to_string()).unwrap();
            let received = received::read(&rules, &event.room_id, &json).unwrap();
            let received = received.verify(&Ed25519, &|_, _| Some(PublicKey::of(&signer))).unwrap();
            prop_assert_eq!((received.form(), &received.pdu().json), (Form::Whole, &event.json));
            prop_assert_eq!(&received.pdu().event_id, &event.event_id);
        }

        let mut expected = content;
        if event.redacts.is_some() && rules.redaction.content_field_redacts {
            expected["redacts"] = event.redacts.as_ref().unwrap().as_str().into();
        }
        prop_assert_eq!(serde_json::from_str::<JsonValue>(event.content.get()).unwrap(), expected);
        crate::pdu::tests::assert_reads_back(&rules, &event);
    }
}
