//! A small room for tests: one server, its users, and the state that their events make.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, UserId, events::StateEventType, owned_room_id, owned_server_name,
    room_version_rules::RoomVersionRules, user_id,
};
use serde_json::{Value as JsonValue, json, value::to_raw_value};

use crate::{
    AuthRuleError, BuildError, EventDraft, EventPosition, Pdu, ServerSigner, auth, auth_types, build_and_sign, rules,
    supported_room_versions,
};

pub(crate) fn alice() -> &'static UserId {
    user_id!("@alice:example.org")
}

pub(crate) fn bob() -> &'static UserId {
    user_id!("@bob:example.org")
}

pub(crate) fn draft(event_type: &str, state_key: Option<&str>, content: JsonValue) -> EventDraft {
    EventDraft {
        event_type: event_type.to_owned(),
        state_key: state_key.map(str::to_owned),
        content: to_raw_value(&content).unwrap(),
        redacts: None,
    }
}

pub(crate) struct TestRoom {
    pub version: RoomVersionId,
    pub rules: RoomVersionRules,
    pub signer: ServerSigner,
    pub room_id: OwnedRoomId,
    pub state: BTreeMap<(String, String), Arc<Pdu>>,
    last: OwnedEventId,
    depth: u64,
}

impl TestRoom {
    /// Creates one room for each supported version. Alice is the creator, and anyone may join.
    pub fn of_every_version() -> impl Iterator<Item = Self> {
        supported_room_versions().iter().cloned().map(Self::new)
    }

    pub fn new(version: RoomVersionId) -> Self {
        let rules = rules(&version).unwrap();
        let signer = ServerSigner::generate(owned_server_name!("example.org"));
        let mut content = json!({ "room_version": version });
        if !rules.authorization.use_room_create_sender {
            content["creator"] = alice().as_str().into();
        }
        let fixed = owned_room_id!("!fixed:example.org");
        let create = build_and_sign(
            &rules,
            &signer,
            draft("m.room.create", Some(""), content),
            EventPosition {
                room_id: Some(&*fixed).filter(|_| !rules.authorization.room_create_event_id_as_room_id),
                sender: alice(),
                prev_events: &[],
                auth_events: &[],
                depth: 1,
                origin_server_ts: 1_700_000_000_000,
            },
        )
        .unwrap();
        let mut room = Self {
            version,
            rules,
            signer,
            room_id: create.room_id.clone(),
            state: BTreeMap::new(),
            last: create.event_id.clone(),
            depth: 1,
        };
        room.accept(create).unwrap();
        let join = draft("m.room.member", Some(alice().as_str()), json!({ "membership": "join" }));
        room.send(alice(), join).unwrap();
        // From version 12 on, the creator is above the power levels and must not be listed in them.
        let listed = !room.rules.authorization.explicitly_privilege_room_creators;
        let levels = json!({ "users": if listed { json!({ alice(): 100 }) } else { json!({}) } });
        room.send(alice(), draft("m.room.power_levels", Some(""), levels)).unwrap();
        room.send(alice(), draft("m.room.join_rules", Some(""), json!({ "join_rule": "public" }))).unwrap();
        room
    }

    /// Builds an event on the current state, whether or not the room allows it.
    pub fn build(&self, sender: &UserId, draft: EventDraft) -> Result<Pdu, BuildError> {
        let types =
            auth_types(&self.rules, &draft.event_type, sender, draft.state_key.as_deref(), &draft.content).unwrap();
        let auth_events: Vec<OwnedEventId> = types
            .iter()
            .filter_map(|(event_type, state_key)| self.state_at(event_type, state_key))
            .map(|event| event.event_id.clone())
            .collect();
        let position = EventPosition {
            room_id: Some(&self.room_id),
            sender,
            prev_events: std::slice::from_ref(&self.last),
            auth_events: &auth_events,
            depth: self.depth + 1,
            origin_server_ts: 1_700_000_000_000 + i64::try_from(self.depth).unwrap(),
        };
        build_and_sign(&self.rules, &self.signer, draft, position)
    }

    /// Builds an event. If the room allows it, it becomes the latest one.
    pub fn send(&mut self, sender: &UserId, draft: EventDraft) -> Result<Arc<Pdu>, AuthRuleError> {
        let event = self.build(sender, draft).unwrap();
        self.accept(event)
    }

    pub fn check(&self, event: &Pdu) -> Result<(), AuthRuleError> {
        let named = self.state.values().filter(|other| event.auth_events.contains(&other.event_id));
        auth::check(&self.rules, event, &named.cloned().collect::<Vec<_>>(), |event_type, state_key| {
            self.state_at(event_type, state_key)
        })
    }

    pub fn state_at(&self, event_type: &StateEventType, state_key: &str) -> Option<Arc<Pdu>> {
        self.state.get(&(event_type.to_string(), state_key.to_owned())).cloned()
    }

    fn accept(&mut self, event: Pdu) -> Result<Arc<Pdu>, AuthRuleError> {
        self.check(&event)?;
        let event = Arc::new(event);
        if let Some(state_key) = event.state_key.clone() {
            self.state.insert((event.event_type.clone(), state_key), Arc::clone(&event));
        }
        self.last = event.event_id.clone();
        self.depth = event.depth;
        Ok(event)
    }
}
