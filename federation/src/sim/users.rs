//! The users: those of each server, and what they want to send.

use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, UserId, room_version_rules::RoomVersionRules};
use serde_json::{Value as JsonValue, json, value::to_raw_value};

use super::rand::Rand;
use crate::build::EventDraft;

/// The number of users of each server beside its keeper.
const OTHERS: usize = 2;

/// The servers and their users.
///
/// The first user of each server is its *keeper*. Nobody bans, kicks or demotes keepers, and they do not leave, so that
/// every server stays in the room and can always speak. Everything may happen to the others.
pub(super) struct Cast {
    users: Vec<Vec<OwnedUserId>>,
    pub rogue: OwnedUserId,
    /// The users who are not keepers.
    others: Vec<OwnedUserId>,
}

impl Cast {
    pub fn new(servers: usize) -> Self {
        let user = |server: usize, user: usize| match user {
            0 => user_id(&format!("@keeper:{}", server_name(server))),
            _ => user_id(&format!("@u{user}:{}", server_name(server))),
        };
        let users: Vec<Vec<OwnedUserId>> =
            (0..servers).map(|server| (0..=OTHERS).map(|number| user(server, number)).collect()).collect();
        let rogue = user_id(&format!("@rogue:{}", server_name(servers)));
        let others = users.iter().flat_map(|users| &users[1..]).chain([&rogue]).cloned().collect();
        Self { users, rogue, others }
    }

    /// The users of a server, its keeper first.
    pub fn of(&self, server: usize) -> &[OwnedUserId] {
        &self.users[server]
    }

    pub fn keeper(&self, server: usize) -> &UserId {
        &self.users[server][0]
    }

    fn is_keeper(&self, user: &UserId) -> bool {
        self.users.iter().any(|users| users[0] == user)
    }

    /// Power levels with random ones for some of the others.
    pub fn levels(&self, rules: &RoomVersionRules, rand: &mut Rand) -> JsonValue {
        // From room version 12 on, the creator is above the power levels and must not be listed.
        let first = usize::from(rules.authorization.explicitly_privilege_room_creators);
        let mut users = json!({});
        for server in &self.users[first..] {
            users[server[0].as_str()] = 100.into();
        }
        for _ in 0..rand.index(6) {
            users[rand.pick(&self.others).as_str()] = (*rand.pick(&[0, 10, 50, 50, 75])).into();
        }
        json!({
            "users": users, "events_default": rand.pick(&[0, 0, 0, 10]), "state_default": rand.pick(&[50, 50, 60]),
            "ban": rand.pick(&[50, 75]), "kick": 50, "redact": 50, "events": { "m.room.topic": rand.pick(&[0, 50]) },
        })
    }

    /// Something that a user wants to send, allowed or not. `known` are events that it may redact.
    pub fn wish(
        &self,
        sender: &UserId,
        rules: &RoomVersionRules,
        known: &[OwnedEventId],
        rand: &mut Rand,
    ) -> EventDraft {
        let is_keeper = self.is_keeper(sender);
        let number = rand.index(1_000);
        let other = rand.pick(&self.others);
        match rand.index(24) {
            0..=2 => member(other, "ban", number),
            // Also ends a ban.
            3..=5 => member(other, "leave", number),
            6 | 7 => member(other, "invite", number),
            8 if !is_keeper => member(sender, "leave", number),
            9..=11 if !is_keeper => member(sender, "join", number),
            8 => draft("m.room.join_rules", Some(""), &json!({ "join_rule": rand.pick(&["public", "invite"]) })),
            9..=13 if is_keeper => draft("m.room.power_levels", Some(""), &self.levels(rules, rand)),
            12 => draft("m.room.power_levels", Some(""), &self.levels(rules, rand)),
            13 | 14 => draft("m.room.topic", Some(""), &json!({ "topic": number })),
            15 => draft("m.room.name", Some(""), &json!({ "name": number })),
            16 => draft("org.example.own", Some(sender.as_str()), &json!({ "number": number })),
            17 => {
                let redacts = Some(rand.pick(known).clone());
                EventDraft { redacts, ..draft("m.room.redaction", None, &json!({})) }
            }
            _ => message(number),
        }
    }
}

/// The name of a server by its number.
pub(super) fn server_name(server: usize) -> OwnedServerName {
    format!("s{server}.test").try_into().expect("a server name")
}

fn user_id(id: &str) -> OwnedUserId {
    id.try_into().expect("a user ID")
}

/// A message.
pub(super) fn message(number: usize) -> EventDraft {
    draft("m.room.message", None, &json!({ "msgtype": "m.text", "body": number.to_string() }))
}

/// A membership. Two with another number are other events.
pub(super) fn member(user: &UserId, membership: &str, number: usize) -> EventDraft {
    let content = json!({ "membership": membership, "reason": number.to_string() });
    draft("m.room.member", Some(user.as_str()), &content)
}

pub(super) fn draft(event_type: &str, state_key: Option<&str>, content: &JsonValue) -> EventDraft {
    EventDraft {
        event_type: event_type.to_owned(),
        state_key: state_key.map(str::to_owned),
        content: to_raw_value(content).expect("JSON"),
        redacts: None,
    }
}
