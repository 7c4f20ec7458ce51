//! Rooms whose whole state was replaced, by writes that are made by hand. Every read must be as if each change of a key had a
//! row of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ruma::{OwnedRoomId, RoomVersionId, UserId};
use sabha_federation::{
    EventDraft,
    held::Held,
    state_log::{Membership, StateLog},
};
use serde_json::{json, value::to_raw_value};

use super::*;
use crate::{
    account::LocalDevice,
    room::{
        event::membership_name,
        read::circumstances::Circumstances,
        tests::{Server, new_room, other_service, servers_on_both_engines, topic},
        write::create::Preset,
    },
    store::{
        EventNid, Row, SideNid, StateKey, Write, checkpoints,
        ids::pack_positions,
        log::Touch,
        room_heads::{self, RoomHeadColumns},
        sides::StateSideColumns,
        states::{StateCheckpointColumns, StateLogColumns},
    },
};

/// A whole state, as the model of the tests keeps it.
type State = BTreeMap<KeyNid, StateEntry>;

struct World {
    server: Server,
    alice: Arc<LocalDevice>,
    room_id: OwnedRoomId,
    /// The state after each commit.
    states: Vec<(Position, State)>,
}

fn member(user: &UserId, membership: Membership) -> EventDraft {
    EventDraft {
        event_type: "m.room.member".to_owned(),
        state_key: Some(user.to_string()),
        content: to_raw_value(&json!({ "membership": membership_name(membership) })).expect("JSON"),
        redacts: None,
    }
}

fn entries(state: &State) -> Vec<(KeyNid, Held)> {
    state.iter().map(|(key, entry)| (*key, Held::from(*entry))).collect()
}

impl World {
    async fn on(server: Server) -> Self {
        let alice = server.register("alice").await;
        let new = new_room(RoomVersionId::V11, Preset::Public);
        let room_id = server.app.rooms.create(&alice, new).await.expect("created");
        let mut world = Self { server, alice, room_id, states: Vec::new() };
        world.record().await;
        world
    }

    fn rooms(&self) -> &Rooms {
        &self.server.app.rooms
    }

    async fn room(&self) -> Arc<Room> {
        self.rooms().find(&self.room_id).await.expect("read").expect("it was created")
    }

    async fn key(&self, event_type: &str, state_key: &str) -> Arc<StateKey> {
        self.rooms().db.state_key(event_type, state_key).await.expect("a key")
    }

    fn now(&self) -> State {
        self.states.last().expect("it was created").1.clone()
    }

    /// The state after the step before the last `back` ones.
    fn earlier(&self, back: usize) -> State {
        self.states[self.states.len() - 1 - back].1.clone()
    }

    async fn record(&mut self) {
        let state = self.room().await.view().state.iter().collect();
        self.states.push((self.rooms().db.committer().published(), state));
    }

    async fn send(&mut self, sender: &LocalDevice, draft: EventDraft) {
        let room = self.room().await;
        let mut writer = self.rooms().enter(&room).await.expect("entered");
        writer.append(&sender.user, draft).await.expect("allowed");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        self.record().await;
    }

    /// Changes the state as `change` says, with the rows that it returns.
    async fn rewrite(&mut self, change: impl FnOnce(StateLog, Position, &mut Write) -> (StateLog, i64)) {
        let room = self.room().await;
        let mut reader = self.rooms().db.read().await.expect("a reader");
        let head = room_heads::find_room_by_nid(&mut reader.conn(), room.nid).await.expect("read").expect("a room");
        drop(reader);
        let changes = room.head.lock().await.changes;
        let before = room.view().state.clone();
        let mut jumps = room.view().jumps.clone();
        let committed = self.rooms().db.committer().submit::<Error>(1, |pos| {
            let mut write = Write::default();
            let (after, changed) = change(before.clone(), pos, &mut write);
            if after.tail_from() == pos {
                jumps.push(pos);
                write.push(checkpoint_row(&room, (&before, &after), pos, changes + changed));
            }
            write.touch(Touch::Jump { room: room.nid });
            write.push(head_row(&head, &after, &jumps, pos));
            Ok(write)
        });
        committed.expect("queued").wait().await.expect("committed");
        // No object waits for this commit, so the room was evicted.
        assert!(self.rooms().in_memory(room.nid).is_none());
        self.record().await;
    }

    async fn jump(&mut self, state: &State) {
        self.rewrite(|before, pos, _| {
            let after = before.jump(pos, entries(state));
            let jump = Jump { pos, before: before.entries().to_vec(), after: after.entries().to_vec() };
            let changed = i64::try_from(jump.rows().count()).expect("few");
            (after, changed)
        })
        .await;
    }

    /// Removes a key from the state without an event, as resolution may.
    async fn remove(&mut self, key: KeyNid) {
        let room_nid = self.room().await.nid;
        self.rewrite(|mut state, pos, write| {
            let change = state.change(key, pos, None, None);
            let before = change.before.map(|entry| entry.event_nid);
            state.apply(change);
            write.touch(Touch::State { room: room_nid, key, event: None, before, membership: None });
            let columns = StateLogColumns {
                room_nid,
                key_nid: key,
                pos,
                event_nid: None,
                prev_event_nid: before,
                membership: None,
            };
            write.push(columns.row());
            (state, 1)
        })
        .await;
    }

    fn keys(&self) -> BTreeSet<KeyNid> {
        self.states.iter().flat_map(|(_, state)| state.keys().copied()).collect()
    }

    async fn check(&self, rooms: &Rooms) {
        let room = rooms.find(&self.room_id).await.expect("read").expect("it was created");
        let levels = self.key("m.room.power_levels", "").await.nid;
        for (pos, state) in &self.states {
            let found: State = rooms.state_at(&room, *pos).await.expect("read").into_iter().collect();
            assert_eq!(found, *state, "at {pos:?}");
            let facts = rooms.circumstances(&room, *pos).await.expect("read");
            assert!(facts.len() <= self.states.len(), "one for each position: {facts:?}");
            for (later, state) in self.states.iter().filter(|(later, _)| later >= pos) {
                let found = Circumstances::at(&facts, *later).expect("facts");
                let joined = state.values().filter(|entry| entry.membership == Some(Membership::Join)).count();
                let expected = (joined, state.get(&levels).map(|entry| entry.event_nid));
                assert_eq!((found.joined, found.power_levels), expected, "at {later:?} after {pos:?}");
                let changes = rooms.state_changes(&room, *pos, *later).await.expect("read");
                assert_eq!(changes, self.differences(*pos, *later), "after {pos:?} until {later:?}");
            }
        }
        for key in self.keys() {
            let history = rooms.key_history(&room, key).await.expect("read");
            let mut last: Option<EventNid> = None;
            for row in &history {
                assert_eq!(row.prev_event_nid, last, "{key:?}: {history:?}");
                last = row.event_nid;
            }
            for (pos, state) in &self.states {
                let expected = state.get(&key).copied();
                assert_eq!(rooms.entry_at(&room, key, *pos).await.expect("read"), expected, "{key:?} at {pos:?}");
                let row = history.iter().rev().find(|row| row.pos <= *pos);
                assert_eq!(row.and_then(|row| row.event_nid), expected.map(|entry| entry.event_nid), "{key:?}");
            }
        }
    }

    fn differences(&self, after: Position, upto: Position) -> Vec<(KeyNid, Option<StateEntry>)> {
        let at = |pos: Position| &self.states.iter().find(|(at, _)| *at == pos).expect("a commit").1;
        let (before, now) = (at(after), at(upto));
        let event = |state: &State, key| state.get(&key).map(|entry| entry.event_nid);
        let differ = self.keys().into_iter().filter(|key| event(before, *key) != event(now, *key));
        differ.map(|key| (key, now.get(&key).copied())).collect()
    }

    /// Checks what a user may see by their membership.
    async fn check_sight(&self, rooms: &Rooms, of: &LocalDevice) {
        let room = rooms.find(&self.room_id).await.expect("read").expect("it was created");
        let key = self.key("m.room.member", of.user.user_id.as_str()).await.nid;
        let sight = rooms.sight(&room, &of.user).await.expect("read");
        for (pos, state) in &self.states {
            let membership = state.get(&key).and_then(|entry| entry.membership);
            let was_there = self.states.iter().any(|(before, state)| before < pos && state.contains_key(&key));
            let expected = membership.or_else(|| was_there.then_some(Membership::Leave));
            assert_eq!(sight.membership_at(*pos), expected, "{} at {pos:?}", of.user_id());
        }
    }
}

fn checkpoint_row(room: &Room, (before, after): (&StateLog, &StateLog), pos: Position, changes: i64) -> Row {
    let blob = checkpoint::encode(after.entries());
    let (hash, before) = (after.hash().to_bytes().to_vec(), Some(checkpoint::encode(before.entries())));
    StateCheckpointColumns { room_nid: room.nid, pos, changes, hash, blob, before }.row()
}

fn head_row(head: &room_heads::RoomRow, state: &StateLog, jumps: &[Position], pos: Position) -> Row {
    let count = |number: usize| i64::try_from(number).expect("few");
    RoomHeadColumns {
        room_nid: crate::store::RoomNid(head.room_nid),
        last_pos: pos,
        depth: head.depth,
        extremities: head.extremities.clone(),
        state_pos: pos,
        state_hash: state.hash().to_bytes().to_vec(),
        jumps: Some(pack_positions(jumps)),
        our_pos: Position::BEFORE_ALL,
        reject_epoch: 0,
        bump_pos: Position(head.bump_pos),
        joined: count(state.joined()),
        invited: count(state.invited()),
        name: None,
        topic: None,
        avatar: None,
        alias: None,
        encryption: None,
        room_type: None,
        join_rule: None,
        history: None,
        guests: None,
        federates: None,
        heroes: head.heroes.clone(),
    }
    .row()
}

/// A room with jumps that bring back, change, add and remove keys, and ordinary changes between them.
async fn room_with_jumps(server: Server) -> (World, Vec<Arc<LocalDevice>>) {
    let mut world = World::on(server).await;
    let alice = Arc::clone(&world.alice);
    let mut users = vec![Arc::clone(&alice)];
    for name in ["bob", "carol", "dave"] {
        users.push(world.server.register(name).await);
    }
    let [_, bob, carol, dave] = &users[..] else { unreachable!("four users") };
    let levels = |level: i64| {
        let content = json!({ "users": { alice.user_id().as_str(): 100 }, "users_default": level });
        crate::room::tests::state("m.room.power_levels", &content)
    };
    let empty = world.now();
    for user in [bob, carol] {
        world.send(user, member(user.user_id(), Membership::Join)).await;
    }
    world.send(&alice, topic("first")).await;
    world.send(&alice, levels(1)).await;
    world.send(carol, member(carol.user_id(), Membership::Leave)).await;

    // Carol is in again, the first power levels are back; bob was never there, and the topic has gone.
    let mut state = world.earlier(2);
    state.remove(&world.key("m.room.member", bob.user_id().as_str()).await.nid);
    state.remove(&world.key("m.room.topic", "").await.nid);
    world.jump(&state).await;
    // Her leave follows on an event that only the jump brought.
    world.send(carol, member(carol.user_id(), Membership::Leave)).await;
    world.send(&alice, topic("second")).await;
    world.send(&alice, levels(2)).await;
    world.send(dave, member(dave.user_id(), Membership::Join)).await;

    // A state that is as it was.
    let state = world.now();
    world.jump(&state).await;
    let dave_key = world.key("m.room.member", dave.user_id().as_str()).await.nid;
    world.remove(dave_key).await;

    // Dave and bob are in, and nobody has touched the topic.
    let mut state = world.earlier(1);
    let topic_key = world.key("m.room.topic", "").await.nid;
    let bob_key = world.key("m.room.member", bob.user_id().as_str()).await.nid;
    state.insert(bob_key, world.states[1].1[&bob_key]);
    state.insert(topic_key, world.now()[&topic_key]);
    world.jump(&state).await;
    // Two jumps without a change between them.
    let mut state = empty;
    state.insert(bob_key, world.states[1].1[&bob_key]);
    world.jump(&state).await;
    world.remove(bob_key).await;
    world.send(&alice, topic("third")).await;
    world.send(bob, member(bob.user_id(), Membership::Join)).await;
    (world, users)
}

#[tokio::test]
async fn reads_across_jumps_are_as_if_each_change_had_a_row() {
    for server in servers_on_both_engines().await {
        let (world, users) = room_with_jumps(server).await;
        assert_eq!(world.room().await.view().jumps.len(), 4);
        world.check(world.rooms()).await;
        // With nothing in memory but what loading brings.
        let other = other_service(&world.server);
        world.check(&other).await;
        for user in &users {
            world.check_sight(world.rooms(), user).await;
            let room = other.find(&world.room_id).await.expect("read").expect("it was created");
            other.prepare_sights(std::slice::from_ref(&room), &user.user).await.expect("read");
            world.check_sight(&other, user).await;
        }
    }
}

#[tokio::test]
async fn a_room_with_jumps_loads_with_four_statements() {
    for server in servers_on_both_engines().await {
        let (world, _) = room_with_jumps(server).await;
        let (jumps, hash) = {
            let room = world.room().await;
            let view = room.view();
            (view.jumps.clone(), view.state.hash())
        };
        let other = other_service(&world.server);
        let before = other.db.counters().statements();
        let room = other.find(&world.room_id).await.expect("read").expect("it was created");
        assert_eq!(other.db.counters().statements() - before, 4);
        assert_eq!((&room.view().jumps, room.view().state.hash()), (&jumps, hash));
        // As a part of many rooms.
        let many = other_service(&world.server);
        many.load_joined(world.alice.user.nid).await.expect("read");
        let room = many.in_memory(room.nid).expect("it was loaded");
        assert_eq!((&room.view().jumps, room.view().state.hash()), (&jumps, hash));
    }
}

#[tokio::test]
async fn the_checkpoints_of_jumps_are_never_thinned() {
    for server in servers_on_both_engines().await {
        let (world, _) = room_with_jumps(server).await;
        let (rooms, room) = (world.rooms(), world.room().await);
        let listed = async || {
            let mut reader = rooms.db.read().await.expect("a reader");
            checkpoints::list(&mut reader.conn(), room.nid).await.expect("read")
        };
        let before = listed().await;
        assert_eq!(before.iter().filter(|listed| listed.is_jump).count(), 4);
        rooms.unthinned.add(room.nid);
        rooms.thin_checkpoints().await.expect("thinned");
        assert_eq!(listed().await, before);
        world.check(rooms).await;
    }
}

#[tokio::test]
async fn a_jump_on_its_way_is_not_seen() {
    for server in servers_on_both_engines().await {
        let (world, _) = room_with_jumps(server).await;
        let room = world.room().await;
        let pos = Position(world.rooms().db.committer().published().0 + 1);
        {
            let mut view = room.view_mut();
            let state = view.state.jump(pos, entries(&world.states[0].1));
            view.state = state;
            view.jumps.push(pos);
        }
        world.check(world.rooms()).await;
    }
}

#[tokio::test]
async fn a_jump_that_cannot_be_read_is_damage() {
    for server in servers_on_both_engines().await {
        let (world, users) = room_with_jumps(server).await;
        let (rooms, room) = (world.rooms(), world.room().await);
        let second = rooms.create(&world.alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
        let second = rooms.find(&second).await.expect("read").expect("it was created");
        let pos = room.view().jumps[0];
        let jump = rooms.jump(&room, pos).await.expect("it is there");
        let key = world.key("m.room.topic", "").await.nid;
        for before in [Some(vec![1, 2, 3]), None] {
            let (hash, blob) = (Vec::new(), checkpoint::encode(&jump.after));
            let row = StateCheckpointColumns { room_nid: room.nid, pos, changes: 1, hash, blob, before }.row();
            rooms.db.committer().write(Write::new(vec![row])).await.expect("committed");
            assert!(rooms.key_history(&room, key).await.expect_err("it is damaged").is_damage());
            assert!(rooms.state_changes(&room, world.states[0].0, pos).await.expect_err("it is damaged").is_damage());
            assert!(rooms.circumstances(&room, world.states[0].0).await.expect_err("it is damaged").is_damage());
            // Sights of many rooms leave the room out.
            let user = &users[1].user;
            let both = [Arc::clone(&room), Arc::clone(&second)];
            rooms.prepare_sights(&both, user).await.expect("the other room can be read");
            let before = rooms.db.counters().statements();
            rooms.sight(&second, user).await.expect("it can be read");
            assert_eq!(rooms.db.counters().statements(), before, "it is in the cache");
            assert!(rooms.sight(&room, user).await.expect_err("it is damaged").is_damage());
        }
    }
}

#[tokio::test]
async fn a_process_that_follows_evicts_a_room_whose_graph_or_whole_state_has_changed() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let follower = other_service(&world.server);
        let room_nid = world.room().await.nid;
        let side = || {
            let (side_nid, hash, delta) = (SideNid(1), vec![0; 16], Vec::new());
            let base_pos = Position::BEFORE_ALL;
            StateSideColumns { side_nid, room_nid, base_pos, parent_nid: None, ordinal: 0, hash, delta }.row()
        };
        for (rows, touch) in
            [(vec![side()], Touch::Graph { room: room_nid }), (Vec::new(), Touch::Jump { room: room_nid })]
        {
            follower.find(&world.room_id).await.expect("read").expect("it was created");
            assert!(follower.in_memory(room_nid).is_some());
            let write = Write::new(rows).touching(touch.clone());
            world.rooms().db.committer().write(write).await.expect("committed");
            assert!(follower.in_memory(room_nid).is_none(), "{touch:?}");
        }
    }
}
