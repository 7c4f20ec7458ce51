//! Events of other servers in rooms of this one: everything that is stored, and what readers see of it.
//!
//! [`model`] keeps the state after each event whole, as ruma resolves it. After each step the room is compared with it, with
//! a room that is loaded anew, and with that of a process which follows the commits.

mod branches;
mod compared;
mod loaded;
mod members;
mod model;
mod redactions;
mod refusals;
mod together;
mod waits;

use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId, ServerName, ServerSigningKeyId, UserId, user_id};
use sabha_federation::{
    EventDraft, EventPosition, Pdu, PublicKey, ServerSigner, auth_types, build_and_sign,
    receive::Mode,
    received::{self, Ed25519, Verified},
    state_log::Membership,
};
use serde_json::{json, value::RawValue};

use self::model::{Model, State};
use super::*;
use crate::{
    account::LocalDevice,
    room::{
        event::{StoredEvent, membership_name},
        tests::{Server, message, new_room, other_service, server, servers_on_both_engines, state, topic},
        write::create::Preset,
    },
    store::{Position, UserNid, tests::count_rows},
};

/// A user of another server who may do anything.
fn carol() -> &'static UserId {
    user_id!("@carol:remote.test")
}

/// A user of a third server who may set the topic and no other state.
fn dave() -> &'static UserId {
    user_id!("@dave:other.test")
}

struct World {
    server: Server,
    /// A process that only the commit log tells of changes.
    follower: Rooms,
    alice: Arc<LocalDevice>,
    room_id: OwnedRoomId,
    model: Model,
    /// The local users whose memberships are compared.
    locals: Vec<UserNid>,
    /// Evicts the room after each step.
    evicts: bool,
    /// Grows with each event that is made.
    clock: i64,
}

/// A member event of this user.
fn member(user_id: &UserId, membership: Membership) -> EventDraft {
    let content = json!({ "membership": membership_name(membership) });
    EventDraft { state_key: Some(user_id.to_string()), ..state("m.room.member", &content) }
}

fn join_rule(rule: &str) -> EventDraft {
    state("m.room.join_rules", &json!({ "join_rule": rule }))
}

impl World {
    /// A room of Alice, which anyone may join, and in which Carol and Dave have joined.
    async fn on(server: Server, version: RoomVersionId) -> Self {
        let alice = server.register("alice").await;
        let rules = sabha_federation::rules(&version).expect("supported");
        let mut new = new_room(version, Preset::Public);
        let mut users = json!({ carol(): 100 });
        // From version 12 on, the creator is above the power levels and must not be listed.
        if !rules.authorization.explicitly_privilege_room_creators {
            users[alice.user_id().as_str()] = 100.into();
        }
        new.power_level_override.insert("users".to_owned(), users);
        new.power_level_override.insert("events".to_owned(), json!({ "m.room.topic": 0 }));
        let room_id = server.app.rooms.create(&alice, new).await.expect("created");
        let follower = other_service(&server);
        let model = Model::new(rules);
        let locals = vec![alice.user.nid];
        // Later than local events: of two state events of equal power, the later one stands.
        let (evicts, clock) = (false, 4_000_000_000_000);
        let mut world = Self { server, follower, alice, room_id, model, locals, evicts, clock };
        world.learn_line().await;
        for user in [carol(), dave()] {
            world.push_new(user, member(user, Membership::Join)).await;
        }
        world
    }

    async fn new() -> Self {
        Self::on(server().await, RoomVersionId::V11).await
    }

    fn rooms(&self) -> &Rooms {
        &self.server.app.rooms
    }

    async fn room(&self) -> Arc<Room> {
        self.rooms().find(&self.room_id).await.expect("read").expect("it was created")
    }

    /// The IDs of the forward extremities, in their order.
    async fn tips(&self) -> Vec<OwnedEventId> {
        let writer = self.rooms().enter(&self.room().await).await.expect("entered");
        writer.head().extremities.iter().map(|extremity| extremity.event_id.clone()).collect()
    }

    /// The event as readers of its number see it.
    async fn event(&self, nid: EventNid) -> Arc<StoredEvent> {
        self.rooms().events.get(&*self.room().await, nid).await.expect("it is stored")
    }

    async fn event_of(&self, event_id: &ruma::EventId) -> Arc<StoredEvent> {
        self.rooms().find_event(&*self.room().await, event_id).await.expect("read").expect("it is stored")
    }

    /// The ID of the current event of a key of the state.
    async fn current(&self, event_type: &str, state_key: &str) -> Option<OwnedEventId> {
        let event = self.rooms().current_state_event(&*self.room().await, event_type, state_key).await.expect("read");
        event.map(|event| event.event_id().to_owned())
    }

    async fn rows(&self, of: &str) -> i64 {
        count_rows(&self.rooms().db, of).await
    }

    /// Builds and signs an event as its sender's server does, with the auth events of the state after `prev`.
    fn make(&mut self, prev: &[OwnedEventId], sender: &UserId, draft: EventDraft) -> Verified {
        let before = self.model.resolved(prev);
        self.make_in(&before, prev, sender, draft)
    }

    /// As [`Self::make`], with the auth events of another state.
    fn make_in(&mut self, state: &State, prev: &[OwnedEventId], sender: &UserId, draft: EventDraft) -> Verified {
        let EventDraft { event_type, state_key, content, .. } = &draft;
        let rules = &self.model.rules;
        let types = auth_types(rules, event_type, sender, state_key.as_deref(), content).expect("it has a form");
        let auth = types.iter().filter_map(|(name, key)| state.get(&(name.to_string(), key.clone())).cloned());
        let auth: Vec<OwnedEventId> = auth.collect();
        self.make_with(&auth, prev, sender, draft)
    }

    fn make_with(
        &mut self,
        auth: &[OwnedEventId],
        prev: &[OwnedEventId],
        sender: &UserId,
        draft: EventDraft,
    ) -> Verified {
        self.clock += 1;
        let position = EventPosition {
            room_id: Some(&self.room_id),
            sender,
            prev_events: prev,
            auth_events: auth,
            depth: prev.iter().filter_map(|id| self.model.depth(id)).max().unwrap_or_default() + 1,
            origin_server_ts: self.clock,
        };
        let signer = ServerSigner::generate(sender.server_name().to_owned());
        let rules = &self.model.rules;
        let sent = build_and_sign(rules, &signer, draft, position).expect("it can be built");
        let json = RawValue::from_string(sent.json.to_string()).expect("JSON");
        let read = received::read(rules, &self.room_id, &json).expect("it has the form of an event");
        let key_of = |_: &ServerName, _: &ServerSigningKeyId| Some(PublicKey::of(&signer));
        read.verify(&Ed25519, &key_of).expect("it is signed")
    }

    async fn receive(&self, event: &Verified) -> Received {
        let incoming = Incoming::new(event.clone(), Mode::Pushed);
        self.rooms().receive(&self.room().await, incoming).await.expect("it is decided about")
    }

    /// Receives an event that can be stored, and compares the room with the model.
    async fn push(&mut self, event: &Verified) -> (EventNid, Flags) {
        let Received::Stored { nid, flags } = self.receive(event).await else { panic!("{:?}", event.pdu()) };
        self.learn(event.pdu(), flags);
        self.check().await;
        (nid, flags)
    }

    /// Receives an event of this user that follows on the forward extremities. Returns its ID.
    async fn push_new(&mut self, sender: &UserId, draft: EventDraft) -> OwnedEventId {
        let tips = self.tips().await;
        self.push_on(&tips, sender, draft).await
    }

    /// Receives an accepted event of this user that follows on these. Returns its ID.
    async fn push_on(&mut self, prev: &[OwnedEventId], sender: &UserId, draft: EventDraft) -> OwnedEventId {
        let event = self.make(prev, sender, draft);
        let (_, flags) = self.push(&event).await;
        assert!(flags.is_accepted(), "{flags:?}: {:?}", event.pdu());
        event.pdu().event_id.clone()
    }

    /// Sends an event of Alice. Returns its ID.
    async fn send(&mut self, draft: EventDraft) -> OwnedEventId {
        let room = self.room().await;
        let mut writer = self.rooms().enter(&room).await.expect("entered");
        let event_id = writer.append(&self.alice.user, draft).await.expect("allowed");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        drop(room);
        self.learn_line().await;
        self.check().await;
        event_id
    }

    fn learn(&mut self, pdu: &Pdu, flags: Flags) {
        self.model.learn(Arc::new(pdu.clone()), flags);
    }

    /// Learns the events of the line that the model does not know.
    async fn learn_line(&mut self) {
        let room = self.room().await;
        let (line, more) =
            self.rooms().timeline(&room, Position::BEFORE_ALL, room.last_pos(), 200).await.expect("read");
        assert!(!more, "the rooms of these tests are small");
        for (_, event) in line {
            if self.model.depth(event.event_id()).is_none() {
                self.learn(&event.pdu, event.standing.flags);
            }
        }
    }

    /// Evicts the room, so that it is loaded again.
    async fn evict(&self) {
        let nid = self.room().await.nid;
        // The first call clears the marks of use, and the second one evicts.
        self.rooms().forget_idle();
        self.rooms().forget_idle();
        assert!(self.rooms().in_memory(nid).is_none(), "nobody uses the room");
    }
}
