//! The writers: each does the steps of its plan in order, and records the answers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    api::{Answer, Api, Device, Request, v3},
    delays::yields,
    plan::{Op, STATE, Step, USERS, VISIBILITIES, WITNESS},
    world::{Act, Ending, World},
};

/// 32 bytes in base64, for keys that are never used.
const SOME_KEY: &str = "zKbLg+NrIjpnagy+pIY6uPL4ZwEG2v+8F9lmgsnlZzs";

/// The server, the users and the rooms of a run.
pub struct Scene {
    pub world: Arc<World>,
    pub api: Api,
    pub room_ids: Vec<String>,
    /// True for rooms of version 12, whose creator has no power level.
    pub creator_is_above: Vec<bool>,
    pub user_ids: Vec<String>,
    /// The first device of each user.
    pub devices: Vec<Device>,
}

pub struct Writer {
    pub scene: Arc<Scene>,
    pub user: usize,
    pub device: Device,
    /// The prefix of its nonces.
    pub name: String,
}

/// Returns the content of `m.room.power_levels`. Levels of users differ, so that some may kick others; `moderator` is
/// random.
pub fn power_levels(user_ids: &[String], creator_is_above: bool, moderator: i64) -> Value {
    let levels = [100, 60, moderator, 10, 0];
    let from = usize::from(creator_is_above);
    let users: serde_json::Map<_, _> =
        (from..USERS).map(|user| (user_ids[user].clone(), Value::from(levels[user]))).collect();
    json!({
        "users": users, "users_default": 0, "events_default": 0, "state_default": 0, "invite": 0, "kick": 20, "ban": 20,
        "redact": 20, "events": { "m.room.power_levels": 100, "m.room.history_visibility": 100 },
    })
}

impl Writer {
    /// The writer with this number of a seed. The first ones have the first devices of the users.
    pub async fn new(scene: &Arc<Scene>, seed: u64, number: usize, user: usize) -> Self {
        let device = match number {
            0..USERS => scene.devices[user].clone(),
            _ => scene.api.login(&scene.user_ids[user]).await,
        };
        Self { scene: Arc::clone(scene), user, device, name: format!("m{seed}w{number}") }
    }

    pub async fn run(self, steps: Vec<Step>) {
        for (number, step) in steps.into_iter().enumerate() {
            yields(step.yields_before).await;
            self.act(&step, format!("{}s{number}", self.name)).await;
        }
    }

    async fn act(&self, step: &Step, nonce: String) {
        if step.op == Op::LogInAndOut {
            let api = &self.scene.api;
            let device = api.login(&self.device.user_id).await;
            api.need(&device.token, &Request::post(v3(["logout"]), json!({}))).await;
            return;
        }
        let about = match &step.op {
            Op::Redact { room, pick } | Op::Receipt { room, pick, .. } => {
                let Some(event_id) = self.scene.world.some_event(*room, *pick) else { return };
                Some(event_id)
            }
            _ => None,
        };
        let Some(request) = self.request(&step.op, &nonce, about.as_deref()) else { return };
        let world = Arc::clone(&self.scene.world);
        let began = world.tick();
        let (answer, is_second) = self.ask(step, &request).await;
        let ending = match answer {
            Some(Answer { status: 200, json, .. }) => Ending::Acknowledged(json),
            // A process without the lease stores nothing.
            Some(Answer { is_elsewhere: true, .. }) if step.op.is_one_write() => Ending::Refused,
            Some(Answer { status: 500.., .. }) | None => Ending::Unknown,
            // The first request may still be running, and may be allowed when the server handles it.
            Some(_) if is_second => Ending::Unknown,
            Some(_) => Ending::Refused,
        };
        let ended = if ending == Ending::Unknown { u64::MAX } else { world.tick() };
        if step.again
            && step.op.has_transaction()
            && let Ending::Acknowledged(first) = &ending
        {
            let second = self.scene.api.need(&self.device.token, &request).await;
            if second["event_id"] != first["event_id"] {
                world.fault(
                    "a repeated transaction ID sent again",
                    format!("{nonce}: first {first}, then {second} for {}", request.path),
                );
            }
        }
        world.record(Act { user: self.user, op: step.op.clone(), nonce, about, began, ended, ending });
    }

    /// Sends the request. Returns the answer, and whether it belongs to a second request. `None` if the client hung up.
    async fn ask(&self, step: &Step, request: &Request) -> (Option<Answer>, bool) {
        let (api, token) = (&self.scene.api, &self.device.token);
        let first = match step.cut {
            Some(cut) => api.ask_and_hang_up(token, request, cut).await,
            None => Some(api.ask(token, request).await),
        };
        // Clients repeat a request that has a transaction ID, and the server must not send twice.
        match first {
            None if step.op.has_transaction() => (Some(api.ask_the_leader(token, request).await), true),
            Some(Answer { is_elsewhere: true, .. }) if step.op.has_transaction() => {
                (Some(api.ask_the_leader(token, request).await), false)
            }
            first => (first, false),
        }
    }

    /// Returns the request for an operation. `None` for operations that this user does not do.
    fn request(&self, op: &Op, nonce: &str, about: Option<&str>) -> Option<Request> {
        let Scene { room_ids, user_ids, devices, creator_is_above, .. } = &*self.scene;
        let own = self.device.user_id.as_str();
        let room = op.room().map(|room| room_ids[room].as_str()).unwrap_or_default();
        let member = |verb: &str, who: usize| {
            let body = json!({ "user_id": user_ids[who], "reason": nonce });
            (who != self.user && who != WITNESS).then(|| Request::post(v3(["rooms", room, verb]), body))
        };
        Some(match op {
            Op::Message { mention, .. } => {
                // Every message has `m.mentions`, so that rules for older clients, which search the text, do not match.
                let mentions = match mention {
                    Some(who) => json!({ "user_ids": [user_ids[*who]] }),
                    None => json!({}),
                };
                let body = json!({ "msgtype": "m.text", "body": nonce, "nonce": nonce, "m.mentions": mentions });
                Request::put(v3(["rooms", room, "send", "m.room.message", nonce]), body)
            }
            Op::State { key, .. } => {
                let (event_type, state_key) = STATE[*key];
                let mut body = json!({ "nonce": nonce });
                match event_type {
                    "m.room.encryption" => body["algorithm"] = "m.megolm.v1.aes-sha2".into(),
                    "m.room.topic" => body["topic"] = nonce.into(),
                    "m.room.name" => body["name"] = nonce.into(),
                    _ => {}
                }
                Request::put(v3(["rooms", room, "state", event_type, state_key]), body)
            }
            Op::PowerLevels { room: index, level } => {
                let mut body = power_levels(user_ids, creator_is_above[*index], *level);
                body["nonce"] = nonce.into();
                Request::put(v3(["rooms", room, "state", "m.room.power_levels", ""]), body)
            }
            Op::Visibility { to, .. } => {
                let body = json!({ "history_visibility": VISIBILITIES[*to], "nonce": nonce });
                Request::put(v3(["rooms", room, "state", "m.room.history_visibility", ""]), body)
            }
            Op::Join { .. } => Request::post(v3(["join", room]), json!({ "reason": nonce })),
            Op::Knock { .. } => Request::post(v3(["knock", room]), json!({ "reason": nonce })),
            Op::Leave { .. } => Request::post(v3(["rooms", room, "leave"]), json!({ "reason": nonce })),
            Op::Forget { .. } => Request::post(v3(["rooms", room, "forget"]), json!({})),
            Op::Kick { who, .. } => member("kick", *who)?,
            Op::Ban { who, .. } => member("ban", *who)?,
            Op::Unban { who, .. } => member("unban", *who)?,
            Op::Invite { who, .. } => member("invite", *who)?,
            Op::Redact { .. } => Request::put(v3(["rooms", room, "redact", about?, nonce]), json!({ "reason": nonce })),
            Op::Receipt { private, .. } => {
                let kind = if *private { "m.read.private" } else { "m.read" };
                Request::post(v3(["rooms", room, "receipt", kind, about?]), json!({}))
            }
            Op::Typing { on, .. } => {
                Request::put(v3(["rooms", room, "typing", own]), json!({ "typing": on, "timeout": 120_000 }))
            }
            Op::AccountData { key } => {
                Request::put(v3(["user", own, "account_data", &data_type(*key)]), json!({ "nonce": nonce }))
            }
            Op::RoomData { key, .. } => Request::put(
                v3(["user", own, "rooms", room, "account_data", &data_type(*key)]),
                json!({ "nonce": nonce }),
            ),
            Op::DisplayName => Request::put(v3(["profile", own, "displayname"]), json!({ "displayname": nonce })),
            Op::ToDevice { who } => {
                let messages = json!({ &user_ids[*who]: { "*": { "nonce": nonce } } });
                Request::put(v3(["sendToDevice", "org.sabha.model", nonce]), json!({ "messages": messages }))
            }
            Op::DeviceKeys => Request::post(v3(["keys", "upload"]), json!({ "device_keys": self.device_keys(nonce) })),
            Op::OneTimeKeys => {
                Request::post(v3(["keys", "upload"]), json!({ "one_time_keys": self.one_time_keys(nonce) }))
            }
            Op::Claim { who } => {
                let wanted = json!({ &user_ids[*who]: { &devices[*who].device_id: "signed_curve25519" } });
                Request::post(v3(["keys", "claim"]), json!({ "one_time_keys": wanted }))
            }
            Op::RenameDevice => Request::put(v3(["devices", &self.device.device_id]), json!({ "display_name": nonce })),
            Op::Alias { key, create: true, .. } => {
                Request::put(v3(["directory", "room", &alias(user_ids, *key)]), json!({ "room_id": room }))
            }
            Op::Alias { key, create: false, .. } => Request::delete(v3(["directory", "room", &alias(user_ids, *key)])),
            Op::Upgrade { .. } => Request::post(v3(["rooms", room, "upgrade"]), json!({ "new_version": "12" })),
            Op::LogInAndOut => return None,
        })
    }

    fn device_keys(&self, nonce: &str) -> Value {
        let Device { user_id, device_id, .. } = &self.device;
        json!({
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", nonce],
            "keys": { format!("ed25519:{device_id}"): SOME_KEY, format!("curve25519:{device_id}"): SOME_KEY },
            "signatures": { user_id: { format!("ed25519:{device_id}"): SOME_KEY } },
        })
    }

    fn one_time_keys(&self, nonce: &str) -> Value {
        let Device { user_id, device_id, .. } = &self.device;
        let signatures = json!({ user_id: { format!("ed25519:{device_id}"): SOME_KEY } });
        let key = |number: usize| {
            let name = format!("{nonce}k{number}");
            (format!("signed_curve25519:{name}"), json!({ "key": name, "signatures": signatures }))
        };
        (0..2).map(key).collect::<serde_json::Map<_, _>>().into()
    }
}

/// Returns an alias that writers create and delete.
pub fn alias(user_ids: &[String], key: usize) -> String {
    let (name, server) = user_ids[WITNESS].split_once(':').unwrap_or_default();
    format!("#{}a{key}:{server}", name.trim_start_matches('@'))
}

/// Returns a type of account data that writers use.
pub fn data_type(key: usize) -> String {
    format!("org.sabha.model{key}")
}
