//! Bodies that are nearly right: an example of the endpoint, or an object of the words that Matrix uses, with some values
//! replaced by others.

use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Map, Value, json};

/// Names that exist on the server, so that a body gets further than the look-up.
pub struct Words {
    pub user: String,
    pub other: String,
    pub device: String,
    pub room: String,
    pub event: String,
}

/// Fields of Matrix' requests.
const FIELDS: [&str; 64] = [
    "access_token",
    "actions",
    "algorithm",
    "algorithms",
    "after",
    "auth",
    "auth_data",
    "base_path",
    "bind",
    "body",
    "canonical_alias",
    "conditions",
    "content",
    "content_uri",
    "count",
    "data",
    "device_id",
    "device_keys",
    "devices",
    "displayname",
    "enabled",
    "erase",
    "event",
    "event_id",
    "events",
    "exclude_threads",
    "fallback_keys",
    "filter",
    "first_message_index",
    "format",
    "id_server",
    "identifier",
    "initial_state",
    "invite",
    "is_direct",
    "is_guest",
    "key",
    "keys",
    "kind",
    "limit",
    "m.fully_read",
    "m.read",
    "m.relates_to",
    "medium",
    "membership",
    "messages",
    "new_password",
    "new_version",
    "one_time_keys",
    "order",
    "password",
    "pattern",
    "power_level_content_override",
    "presence",
    "preset",
    "reason",
    "room",
    "room_id",
    "room_version",
    "rooms",
    "search_term",
    "session",
    "signatures",
    "type",
];

impl Words {
    /// The path with names for its parameters; now and then an odd one.
    pub fn fill(&self, template: &str, rng: &mut StdRng) -> String {
        let segments = template.split('/').map(|segment| match segment.strip_prefix('{') {
            Some(parameter) => encoded(&self.parameter(parameter.trim_end_matches('}'), rng)),
            None => segment.to_owned(),
        });
        segments.collect::<Vec<_>>().join("/")
    }

    fn parameter(&self, name: &str, rng: &mut StdRng) -> String {
        if rng.random_ratio(1, 12) {
            return [" ", "x", "%", "\u{0}", "💬", "!", "@:", "-1", &"a".repeat(300)][rng.random_range(0..9)]
                .to_owned();
        }
        let text = match name {
            "room_id" | "room_id_or_alias" => &self.room,
            "room_alias" => "#fuzz:sabha.test",
            "user_id" => &self.user,
            "device_id" => &self.device,
            "event_id" => &self.event,
            "txn_id" | "session_id" => return rng.random_range(0..1000).to_string(),
            "event_type" | "type" => {
                ["m.room.message", "m.room.topic", "m.room.member", "m.direct", "m.room.power_levels"]
                    [rng.random_range(0..5)]
            }
            "state_key" => ["", &self.user, &self.other][rng.random_range(0..3)],
            "receipt_type" => ["m.read", "m.read.private", "m.fully_read"][rng.random_range(0..3)],
            "kind" => ["override", "underride", "content", "room", "sender"][rng.random_range(0..5)],
            "field" => ["displayname", "avatar_url", "m.tz", "org.example.field"][rng.random_range(0..4)],
            "version" | "filter_id" => "1",
            _ => "m.fuzz",
        };
        text.to_owned()
    }

    /// A body for the path.
    pub fn body(&self, path: &str, rng: &mut StdRng) -> Value {
        let mut body = if rng.random_ratio(4, 5) { self.example(path) } else { self.object(rng, 3) };
        for _ in 0..rng.random_range(0..4) {
            self.change(&mut body, rng);
        }
        body
    }

    /// A body that the endpoint takes, or an object of all that is likely in one.
    fn example(&self, path: &str) -> Value {
        let Self { user, other, device, room, event } = self;
        let key = json!({ "key": "YWJj", "signatures": { user: { format!("ed25519:{device}"): "c2ln" } } });
        let identity = |usage: &str| json!({ "user_id": user, "usage": [usage], "keys": { "ed25519:YWJj": "YWJj" } });
        let session = json!({
            "first_message_index": 1, "forwarded_count": 0, "is_verified": true, "session_data": { "ciphertext": "x" },
        });
        let has = |part: &str| path.contains(part);
        if has("/createRoom") {
            return json!({
                "preset": "private_chat", "room_version": "11", "name": "Tea", "topic": "t", "invite": [other],
                "room_alias_name": "fuzz", "creation_content": { "type": "m.space" }, "is_direct": true,
                "initial_state": [{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }],
                "power_level_content_override": { "users": { user: 100 }, "events": { "m.room.name": 50 } },
            });
        }
        if has("/upgrade") {
            return json!({ "new_version": "12" });
        }
        if has("/login") || has("/register") || has("/account/") || has("/delete_devices") {
            return json!({
                "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": "x",
                "auth": { "type": "m.login.dummy", "session": "s" }, "username": "fuzz", "new_password": "correct horse battery",
                "device_id": device, "initial_device_display_name": "d", "refresh_token": true, "devices": [device],
            });
        }
        if has("/keys/upload") {
            return json!({
                "device_keys": {
                    "user_id": user, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                    "keys": { format!("ed25519:{device}"): "YWJj" }, "signatures": {},
                },
                "one_time_keys": { "signed_curve25519:A": key }, "fallback_keys": { "signed_curve25519:B": key },
            });
        }
        if has("/keys/device_signing") {
            return json!({
                "master_key": identity("master"), "self_signing_key": identity("self_signing"),
                "user_signing_key": identity("user_signing"), "auth": { "type": "m.login.dummy" },
            });
        }
        if has("/keys/signatures") {
            return json!({ user: { device: { "user_id": user, "device_id": device, "signatures": { user: { "a:b": "c" } } } } });
        }
        if has("/keys/") {
            return json!({ "device_keys": { user: [device], other: [] }, "one_time_keys": { user: { device: "signed_curve25519" } } });
        }
        if has("/room_keys/version") {
            return json!({ "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": { "public_key": "x" } });
        }
        if has("/room_keys/") {
            return json!({ "rooms": { room: { "sessions": { "s": session } } }, "sessions": { "s": session } });
        }
        if has("/sendToDevice") {
            return json!({ "messages": { other: { "*": { "a": 1 } }, user: { device: {} } } });
        }
        if has("/pushrules") {
            return json!({
                "actions": ["notify", { "set_tweak": "sound", "value": "default" }], "pattern": "tea*", "enabled": true,
                "conditions": [{ "kind": "event_match", "key": "content.body", "pattern": "x" }, { "kind": "room_member_count", "is": ">2" }],
            });
        }
        if has("/filter") {
            return json!({
                "room": { "timeline": { "limit": 5, "types": ["m.*"], "not_senders": [other] }, "rooms": [room] },
                "presence": { "types": [] }, "event_fields": ["content.body"], "event_format": "client",
            });
        }
        if has("/presence") {
            return json!({ "presence": "online", "status_msg": "x" });
        }
        if has("/read_markers") || has("/receipt") {
            return json!({ "m.fully_read": event, "m.read": event, "thread_id": "main" });
        }
        if has("/typing") {
            return json!({ "typing": true, "timeout": 1000 });
        }
        if has("/publicRooms") {
            return json!({ "limit": 10, "filter": { "generic_search_term": "tea", "room_types": [null, "m.space"] }, "since": "x" });
        }
        if has("/directory") {
            return json!({ "room_id": room, "visibility": "public" });
        }
        if has("/state/") || has("/send/") || has("/account_data") || has("/tags") {
            return json!({
                "msgtype": "m.text", "body": "hi", "m.relates_to": { "rel_type": "m.thread", "event_id": event },
                "membership": "join", "users": { user: 100 }, "topic": "t", "alias": "#x:sabha.test", "order": 0.5,
                "m.mentions": { "user_ids": [other], "room": true }, "ignored_users": { other: {} },
            });
        }
        json!({
            "user_id": other, "reason": "r", "displayname": "A", "avatar_url": "mxc://sabha.test/a", "m.tz": "Europe/Berlin",
            "org.example.field": {}, "display_name": "d", "room_id": room, "event_id": event, "invite_target": other,
        })
    }

    fn object(&self, rng: &mut StdRng, depth: u32) -> Value {
        let fields = rng.random_range(0..6);
        let field = |rng: &mut StdRng| FIELDS[rng.random_range(0..FIELDS.len())].to_owned();
        (0..fields).map(|_| (field(rng), self.value(rng, depth))).collect::<Map<_, _>>().into()
    }

    fn value(&self, rng: &mut StdRng, depth: u32) -> Value {
        match rng.random_range(0..22) {
            0 => Value::Null,
            1 => rng.random::<bool>().into(),
            2 => 0.into(),
            3 => (-1).into(),
            4 => i64::MAX.into(),
            5 => u64::MAX.into(),
            6 => json!(1.5e300),
            7 => "".into(),
            8 => "\u{0}".into(),
            9 => "💬\u{202e}\u{fffe}".into(),
            10 => "x".repeat(70_000).into(),
            11 => self.user.clone().into(),
            12 => self.other.clone().into(),
            13 => self.room.clone().into(),
            14 => self.event.clone().into(),
            15 => "@nobody:elsewhere.test".into(),
            16 => json!([]),
            17 => json!({}),
            18 if depth > 0 => (0..rng.random_range(0..4)).map(|_| self.value(rng, depth - 1)).collect(),
            19 if depth > 0 => self.object(rng, depth - 1),
            20 => (0..40).fold(json!(1), |inner, _| json!([inner])),
            _ => "m.text".into(),
        }
    }

    /// Replaces a value somewhere in the body, takes a field out, or renames one.
    fn change(&self, body: &mut Value, rng: &mut StdRng) {
        let goes_on = rng.random_ratio(3, 4);
        match body {
            Value::Object(fields) if !fields.is_empty() => {
                let index = rng.random_range(0..fields.len());
                if goes_on {
                    let inner = fields.values_mut().nth(index).expect("the index is below the length");
                    return self.change(inner, rng);
                }
                let name = fields.keys().nth(index).expect("the index is below the length").clone();
                let taken = fields.remove(&name);
                if let Some(taken) = taken.filter(|_| rng.random()) {
                    fields.insert(FIELDS[rng.random_range(0..FIELDS.len())].to_owned(), taken);
                }
            }
            Value::Array(items) if !items.is_empty() && goes_on => {
                let index = rng.random_range(0..items.len());
                self.change(&mut items[index], rng);
            }
            other => *other = self.value(rng, 2),
        }
    }
}

/// Text that is no JSON any more: cut off, or with something in it.
pub fn broken(body: &Value, rng: &mut StdRng) -> String {
    let mut text = body.to_string();
    let mut at = rng.random_range(0..=text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    match rng.random_range(0..3) {
        0 => text.truncate(at),
        1 => text.insert(at, '"'),
        _ => text.insert(at, '\u{feff}'),
    }
    text
}

fn encoded(segment: &str) -> String {
    segment.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}
