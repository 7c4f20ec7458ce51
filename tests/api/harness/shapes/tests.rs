//! Good and bad answers, one per line.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Shapes, Violation};

const JOINED_ROOMS: &str = "GET /_matrix/client/v3/joined_rooms";
const MESSAGES: &str = "GET /_matrix/client/v3/rooms/!a%3Ab/messages?dir=b";
const SYNC: &str = "GET /_matrix/client/v3/sync";
const DEACTIVATE: &str = "POST /_matrix/client/v3/account/deactivate";

fn violations(request: &str, status: u16, body: &Value) -> Vec<Violation> {
    let (method, path) = request.split_once(' ').expect("a request is a method and a path");
    let method: Method = method.parse().expect("an HTTP method");
    let status = StatusCode::from_u16(status).expect("an HTTP status");
    Shapes::load().check(&method, path, status, body).err().unwrap_or_default()
}

#[track_caller]
fn good(request: &str, status: u16, body: Value) {
    let found = violations(request, status, &body);
    assert!(found.is_empty(), "{request} {status} {body}: {found:?}");
}

#[track_caller]
fn bad(request: &str, status: u16, body: Value, pointers: &[&str]) {
    let found = violations(request, status, &body);
    let at: Vec<_> = found.iter().map(|violation| violation.pointer.as_str()).collect();
    assert_eq!(at, pointers, "{request} {status} {body}: {found:?}");
}

fn event(room_id: Value) -> Value {
    json!({
        "event_id": "$e", "type": "m.room.message", "sender": "@a:b", "room_id": room_id,
        "origin_server_ts": 1, "content": {},
    })
}

#[test]
fn a_required_field_must_be_there() {
    good(JOINED_ROOMS, 200, json!({ "joined_rooms": ["!a:b", "!c"] }));
    bad(JOINED_ROOMS, 200, json!({}), &["/joined_rooms"]);
    bad(SYNC, 200, json!({ "rooms": {} }), &["/next_batch"]);
}

#[test]
fn a_violation_says_what_was_expected_and_what_was_found() {
    let found = violations(JOINED_ROOMS, 200, &json!({ "joined_rooms": [5] }));
    assert_eq!(found[0].to_string(), "/joined_rooms/0: expected string, found 5");
    let found = violations(JOINED_ROOMS, 200, &json!({}));
    assert_eq!(found[0].to_string(), "/joined_rooms: expected the field joined_rooms, found no such field");
}

#[test]
fn types_are_as_declared() {
    good(SYNC, 200, json!({ "next_batch": "s1" }));
    bad(SYNC, 200, json!({ "next_batch": null }), &["/next_batch"]);
    bad(SYNC, 200, json!([]), &[""]);
    let counts = |count: Value| json!({ "next_batch": "s1", "device_one_time_keys_count": { "curve": count } });
    good(SYNC, 200, counts(json!(20)));
    bad(SYNC, 200, counts(json!(20.0)), &["/device_one_time_keys_count/curve"]);
    bad(SYNC, 200, counts(json!("20")), &["/device_one_time_keys_count/curve"]);
}

#[test]
fn an_optional_field_is_left_out_rather_than_null() {
    let chunk = |name: Value| {
        json!({ "chunk": [{
            "room_id": "!a:b", "num_joined_members": 1, "world_readable": false, "guest_can_join": false, "name": name,
        }] })
    };
    good("GET /_matrix/client/v3/publicRooms", 200, chunk(json!("Fellowship")));
    bad("GET /_matrix/client/v3/publicRooms", 200, chunk(json!(null)), &["/chunk/0/name"]);
}

#[test]
fn null_passes_where_the_specification_declares_it() {
    let pushers = |lang: Value, data: Value| {
        json!({ "pushers": [{
            "pushkey": "k", "kind": "http", "app_id": "a", "app_display_name": "A", "device_display_name": "D",
            "lang": lang, "data": data,
        }] })
    };
    good("GET /_matrix/client/v3/pushers", 200, pushers(json!("en"), json!({ "url": "https://b.example" })));
    bad("GET /_matrix/client/v3/pushers", 200, pushers(json!(null), json!({})), &["/pushers/0/lang"]);
    let rule = |value: Value| {
        json!({
            "rule_id": ".m.rule.x", "default": true, "enabled": true, "actions": [],
            "conditions": [{ "kind": "event_property_is", "key": "a", "value": value }],
        })
    };
    good("GET /_matrix/client/v3/pushrules/global/override/.m.rule.x", 200, rule(json!(null)));
    bad("GET /_matrix/client/v3/pushrules/global/override/.m.rule.x", 200, rule(json!([])), &["/conditions/0/value"]);
}

#[test]
fn lists_and_merged_schemas_are_looked_into() {
    good(MESSAGES, 200, json!({ "start": "t1", "chunk": [event(json!("!a:b"))] }));
    bad(MESSAGES, 200, json!({ "start": "t1", "chunk": [event(json!(1))] }), &["/chunk/0/room_id"]);
    bad(
        MESSAGES,
        200,
        json!({ "start": "t1", "chunk": [{}] }),
        &[
            "/chunk/0/content",
            "/chunk/0/event_id",
            "/chunk/0/origin_server_ts",
            "/chunk/0/room_id",
            "/chunk/0/sender",
            "/chunk/0/type",
        ],
    );
}

#[test]
fn maps_are_looked_into_and_keyed_as_described() {
    let joined = |room_id: &str, room: Value| json!({ "next_batch": "s1", "rooms": { "join": { room_id: room } } });
    good(SYNC, 200, joined("!a:b", json!({ "timeline": { "events": [] } })));
    bad(SYNC, 200, joined("!a:b", json!({ "timeline": {} })), &["/rooms/join/!a:b/timeline/events"]);
    bad(SYNC, 200, joined("#a:b", json!({})), &["/rooms/join/#a:b"]);
}

#[test]
fn strings_look_like_what_they_are() {
    bad(
        MESSAGES,
        200,
        json!({ "start": "t1", "chunk": [event(json!("a:b"))] }),
        &["/chunk/0/room_id", "/chunk/0/room_id"],
    );
    good("POST /_matrix/media/v1/create", 200, json!({ "content_uri": "mxc://b/c" }));
    bad("POST /_matrix/media/v1/create", 200, json!({ "content_uri": "mxc://b" }), &["/content_uri"]);
}

#[test]
fn an_enum_takes_only_its_values() {
    let status = |presence: &str| json!({ "presence": presence });
    good("GET /_matrix/client/v3/presence/@a:b/status", 200, status("online"));
    bad("GET /_matrix/client/v3/presence/@a:b/status", 200, status("busy"), &["/presence"]);
}

#[test]
fn one_alternative_is_enough_and_the_nearest_is_told() {
    let claimed = |key: Value| json!({ "one_time_keys": { "@a:b": { "D": { "k:1": key } } } });
    let request = "POST /_matrix/client/v3/keys/claim";
    good(request, 200, claimed(json!("key")));
    good(request, 200, claimed(json!({ "key": "key", "signatures": {} })));
    bad(request, 200, claimed(json!({ "key": "key" })), &["/one_time_keys/@a:b/D/k:1/signatures"]);
    bad(request, 200, claimed(json!(1)), &["/one_time_keys/@a:b/D/k:1"]);
}

#[test]
fn extra_fields_pass_unless_the_body_must_be_empty() {
    good(JOINED_ROOMS, 200, json!({ "joined_rooms": [], "org.example.more": null }));
    good("POST /_matrix/client/v3/rooms/!a:b/receipt/m.read/$e", 200, json!({}));
    bad("POST /_matrix/client/v3/rooms/!a:b/receipt/m.read/$e", 200, json!({ "a": 1 }), &[""]);
}

#[test]
fn any_endpoint_may_answer_with_a_standard_error() {
    good(JOINED_ROOMS, 403, json!({ "errcode": "M_FORBIDDEN", "error": "No" }));
    good(JOINED_ROOMS, 401, json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "No", "soft_logout": true }));
    good(JOINED_ROOMS, 500, json!({ "errcode": "ORG.EXAMPLE.BROKEN" }));
    bad(JOINED_ROOMS, 403, json!({ "error": "No" }), &["/errcode"]);
    bad(JOINED_ROOMS, 403, json!({ "errcode": "forbidden" }), &["/errcode"]);
    bad(JOINED_ROOMS, 403, json!({ "errcode": "M_FORBIDDEN", "error": null }), &["/error"]);
    bad(JOINED_ROOMS, 429, json!({ "errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1.5 }), &["/retry_after_ms"]);
    good("PATCH /_matrix/client/v3/nothing", 404, json!({ "errcode": "M_UNRECOGNIZED" }));
}

#[test]
fn an_unauthorized_answer_is_an_error_or_asks_for_more() {
    good(DEACTIVATE, 401, json!({ "errcode": "M_MISSING_TOKEN", "error": "No" }));
    good(DEACTIVATE, 401, json!({ "flows": [{ "stages": ["m.login.password"] }], "params": {}, "session": "s" }));
    good(DEACTIVATE, 401, json!({ "errcode": "M_FORBIDDEN", "flows": [{ "stages": [] }], "completed": [] }));
    bad(DEACTIVATE, 401, json!({ "flows": [{}], "session": 1 }), &["/flows/0/stages", "/session"]);
    bad(DEACTIVATE, 401, json!({ "session": "s" }), &["/errcode"]);
}

#[test]
fn the_most_literal_endpoint_serves_a_path() {
    good("GET /_matrix/federation/v1/query/m.anything?a=b", 200, json!({}));
    bad("GET /_matrix/federation/v1/query/directory?a=b", 200, json!({}), &["/room_id", "/servers"]);
    good("GET /_matrix/client/v3/rooms/!a:b/state", 200, json!([]));
    for path in ["m.room.name/", "m.room.name", "m.room.member/@a:b", "m.room.member/%2F"] {
        good(&format!("GET /_matrix/client/v3/rooms/!a:b/state/{path}"), 200, json!({ "name": "A" }));
    }
    bad("GET /_matrix/client/v3/rooms//members", 200, json!({}), &[""]);
}

#[test]
fn a_template_and_an_old_prefix_find_the_same_endpoint() {
    bad("GET /_matrix/client/v3/rooms/{roomId}/members", 200, json!({ "chunk": 1 }), &["/chunk"]);
    bad("GET /_matrix/client/r0/joined_rooms", 200, json!({}), &["/joined_rooms"]);
    good("GET /_matrix/media/v1/config", 200, json!({ "m.upload.size": 1 }));
}

#[test]
fn a_success_that_the_specification_does_not_list_is_refused() {
    bad(JOINED_ROOMS, 201, json!({ "joined_rooms": [] }), &[""]);
    bad("GET /_matrix/client/v3/nothing", 200, json!({}), &[""]);
    good("GET /_matrix/client/unstable/org.example/thing", 200, json!({}));
    good("GET /health", 200, json!("anything"));
}

#[test]
fn an_invited_server_echoes_an_event_without_an_origin() {
    let invite = json!({
        "type": "m.room.member", "state_key": "@a:b", "sender": "@c:d", "origin_server_ts": 1,
        "content": { "membership": "invite" },
    });
    good("PUT /_matrix/federation/v2/invite/!a:b/$e", 200, json!({ "event": invite }));
    good("PUT /_matrix/federation/v1/invite/!a:b/$e", 200, json!([200, { "event": invite }]));
    bad("PUT /_matrix/federation/v2/invite/!a:b/$e", 200, json!({}), &["/event"]);
}

#[test]
fn media_and_redirects_have_no_json_body() {
    let expects = |path: &str, status| Shapes::load().expects_json(&Method::GET, path, status);
    let download = "/_matrix/client/v1/media/download/b/c";
    assert!(!expects(download, StatusCode::OK));
    assert!(!expects(download, StatusCode::TEMPORARY_REDIRECT));
    assert!(expects(download, StatusCode::NOT_FOUND));
    assert!(expects("/_matrix/client/v3/sync", StatusCode::OK));
    bad(&format!("GET {download}"), 200, json!({}), &[""]);
}
