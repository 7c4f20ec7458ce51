//! Decisions about events of every kind, on a server in memory that compares each with whole states.

mod effects;
mod merges;
mod order;
mod redactions;
mod refusals;
mod server;
mod waits;

use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId, UserId, owned_room_id, user_id};
use serde_json::{Value as JsonValue, json};

use self::server::{Made, Server, State, verified};
use super::{local::LocalError, *};
use crate::{auth_types, supported_room_versions, test_ready::ready, test_room::draft};

/// A user of the server under test, who creates the rooms.
fn alice() -> &'static UserId {
    user_id!("@alice:us.test")
}

fn bob() -> &'static UserId {
    user_id!("@bob:b.test")
}

fn carol() -> &'static UserId {
    user_id!("@carol:c.test")
}

/// An event that a user sends: the type, the state key and the content.
type Content = (&'static str, Option<String>, JsonValue);

fn message(body: &str) -> Content {
    ("m.room.message", None, json!({ "body": body }))
}

fn topic(topic: &str) -> Content {
    ("m.room.topic", Some(String::new()), json!({ "topic": topic }))
}

fn member(user: &UserId, membership: &str) -> Content {
    ("m.room.member", Some(user.to_string()), json!({ "membership": membership }))
}

impl Server {
    /// Alice's room, which anyone may join, and in which Bob and Carol have joined. Everybody may send a topic, and Bob
    /// may kick.
    fn with_room(version: &RoomVersionId) -> Self {
        let mut server = Self::empty(version);
        for (sender, (event_type, state_key, content)) in beginning(version) {
            server.send(sender, draft(event_type, state_key.as_deref(), content)).unwrap();
        }
        server
    }

    /// A server that knows nothing of the room yet.
    fn empty(version: &RoomVersionId) -> Self {
        Self::new(version, room_id(version))
    }

    /// A server of the same room that received the same events.
    fn copy(&self, version: &RoomVersionId) -> Self {
        let mut copy = Self::empty(version);
        for event in self.events.values() {
            copy.push(&event.pdu);
        }
        copy
    }

    /// Builds an event on these previous events with the auth events of the state after them. All of them are stored.
    fn make_on(&self, prev: &[OwnedEventId], sender: &UserId, content: Content) -> Pdu {
        self.made_on(prev, sender, &content).build(&self.rules, &self.room_id)
    }

    fn made_on<'a>(&self, prev: &[OwnedEventId], sender: &'a UserId, content: &'a Content) -> Made<'a> {
        let (event_type, state_key, content) = content;
        let state = self.named(&self.after(prev));
        let raw = serde_json::value::to_raw_value(content).unwrap();
        let types = auth_types(&self.rules, event_type, sender, state_key.as_deref(), &raw).unwrap();
        let auth = types.iter().filter_map(|(name, key)| state.get(&(name.to_string(), key.clone())).cloned());
        let depth = prev.iter().map(|prev| self.event(prev).pdu.depth).max().unwrap_or_default() + 1;
        Made {
            sender,
            event_type,
            state_key: state_key.as_deref(),
            content: content.clone(),
            redacts: None,
            prev: prev.to_vec(),
            auth: auth.collect(),
            depth,
            ts: 1_700_000_000_000 + i64::try_from(depth).unwrap(),
        }
    }

    /// Builds an event on the forward extremities.
    fn make(&self, sender: &UserId, content: Content) -> Pdu {
        self.make_on(&self.tips(), sender, content)
    }

    /// Receives an event on the forward extremities.
    fn push_new(&mut self, sender: &UserId, content: Content) -> Decision {
        let event = self.make(sender, content);
        self.push(&event)
    }

    /// Receives an event on these events.
    fn push_on(&mut self, prev: &[&Decision], sender: &UserId, content: Content) -> Decision {
        let prev: Vec<_> = prev.iter().map(|decision| id(decision)).collect();
        let event = self.make_on(&prev, sender, content);
        self.push(&event)
    }
}

fn id(decision: &Decision) -> OwnedEventId {
    decision.event.pdu().event_id.clone()
}

/// The create event's content, and the other events with which a room begins.
fn beginning(version: &RoomVersionId) -> Vec<(&'static UserId, Content)> {
    let rules = crate::rules(version).unwrap();
    let mut create = json!({ "room_version": version });
    if !rules.authorization.use_room_create_sender {
        create["creator"] = alice().as_str().into();
    }
    let mut users = json!({ bob(): 50 });
    // From version 12 on, the creator is above the power levels and must not be listed.
    if !rules.authorization.explicitly_privilege_room_creators {
        users[alice().as_str()] = 100.into();
    }
    let levels = json!({ "users": users, "events": { "m.room.topic": 0 }, "state_default": 50 });
    vec![
        (alice(), ("m.room.create", Some(String::new()), create)),
        (alice(), member(alice(), "join")),
        (alice(), ("m.room.power_levels", Some(String::new()), levels)),
        (alice(), ("m.room.join_rules", Some(String::new()), json!({ "join_rule": "public" }))),
        (bob(), member(bob(), "join")),
        (carol(), member(carol(), "join")),
    ]
}

fn room_id(version: &RoomVersionId) -> OwnedRoomId {
    let rules = crate::rules(version).unwrap();
    let fixed = owned_room_id!("!room:us.test");
    if !rules.authorization.room_create_event_id_as_room_id {
        return fixed;
    }
    let (sender, (event_type, state_key, content)) = beginning(version).swap_remove(0);
    let state_key = state_key.as_deref();
    let ts = 1_700_000_000_000;
    let made = Made { sender, event_type, state_key, content, redacts: None, prev: vec![], auth: vec![], depth: 1, ts };
    made.build(&rules, &fixed).room_id
}

/// Some versions in which the rules about events, their IDs and resolution differ.
fn versions() -> [RoomVersionId; 4] {
    [RoomVersionId::V6, RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12]
}

#[test]
fn a_room_begins_with_its_create_event_and_goes_on_in_one_line() {
    for version in supported_room_versions() {
        let mut server = Server::with_room(version);
        assert_eq!((server.extremities.len(), server.state().len()), (1, 6), "{version}");
        let said = server.push_new(bob(), message("hello"));
        assert_eq!((said.flags, said.placing, &said.refused), (Flags::TIP, Placing::EndOfLine, &None), "{version}");
        assert!(said.changes.is_empty() && said.sides.is_empty() && said.missing.is_empty());
        let named = server.push_new(carol(), topic("x"));
        let change = (named.key.unwrap(), Some(Held { event_nid: named.nid, membership: None }));
        assert_eq!((named.flags, named.changes, named.sides.len()), (Flags::TIP, vec![change], 0), "{version}");
        assert_eq!(named.covers, [said.nid]);
        // Nothing was resolved on the way.
        assert_eq!(server.runs.into_inner(), 0);
    }
}
