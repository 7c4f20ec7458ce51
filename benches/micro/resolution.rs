//! State resolution of a large room, and of many branches, with a room in memory that answers at once.
//!
//! Aims: 30 keys of 50,000 members in a millisecond, a thousand branches in a second.

use divan::Bencher;
use ruma::{OwnedEventId, OwnedUserId, RoomVersionId};
use sabha_federation::{
    held::StateDelta,
    ids::Position,
    resolve::{Conflict, prepare},
};
use serde_json::{Value as JsonValue, json};

use crate::{
    test_ready::ready,
    test_world::{NewEvent, State, World},
};

const MEMBERS: usize = 50_000;

/// The position at which the log has the whole room.
const HEAD: Position = Position(1);

struct Room {
    world: World,
    state: State,
    sent: i64,
}

impl Room {
    fn new(version: &RoomVersionId, members: usize) -> Self {
        let world = World::new(version, &user(0));
        let state = world.state(&[world.create]);
        let mut room = Self { world, state, sent: 0 };
        room.join(0, "");
        room.levels(50);
        room.send(0, "m.room.join_rules", "", &json!({ "join_rule": "public" }));
        for number in 1..members {
            room.join(number, "");
        }
        room.world.log.insert(HEAD, room.state.clone());
        room
    }

    fn send(&mut self, sender: usize, event_type: &str, state_key: &str, content: &JsonValue) {
        self.sent += 1;
        let event_id: OwnedEventId = format!("$e{}", self.sent).parse().expect("an event ID");
        let (sender, content, ts) = (&user(sender), content.clone(), self.sent);
        let event = NewEvent { event_id, sender, event_type, state_key: Some(state_key), content, ts };
        let nid = self.world.send(&self.state, event);
        self.world.set(&mut self.state, nid);
    }

    fn join(&mut self, number: usize, name: &str) {
        let content = json!({ "membership": "join", "displayname": name });
        self.send(number, "m.room.member", user(number).as_str(), &content);
    }

    /// Sets the power level of another user. Version 12 does not allow the creator in the list.
    fn levels(&mut self, level: i64) {
        let mut users = json!({ user(1): level });
        if !self.world.rules.authorization.explicitly_privilege_room_creators {
            users[user(0).as_str()] = 100.into();
        }
        self.send(0, "m.room.power_levels", "", &json!({ "users": users }));
    }

    /// The changes of a branch. The next one starts from the head again.
    fn take_branch(&mut self) -> StateDelta {
        let head = self.world.log[&HEAD].clone();
        let reached = std::mem::replace(&mut self.state, head);
        self.world.delta(&reached, HEAD)
    }

    fn resolve(&self, states: &[StateDelta]) -> usize {
        let conflict = Conflict {
            base: HEAD,
            states: states.iter().collect(),
            rules: &self.world.rules,
            room_id: &self.world.room_id,
            create: self.world.create,
        };
        let prepared = ready(prepare(&self.world, &conflict)).expect("a whole room");
        prepared.run().expect("events of a known form").changes.len()
    }
}

fn user(number: usize) -> OwnedUserId {
    format!("@user{number}:example.org").parse().expect("a user ID")
}

/// Members who changed their names on both branches, and others who joined on one.
#[divan::bench(args = [30])]
fn resolve_keys_of_50000_members(bencher: Bencher<'_, '_>, keys: usize) {
    let mut room = Room::new(&RoomVersionId::V12, MEMBERS);
    let states: Vec<StateDelta> = ["one", "other"]
        .into_iter()
        .enumerate()
        .map(|(branch, name)| {
            for number in 0..keys / 3 {
                room.join(2 + number, name);
                room.join(MEMBERS + branch * keys + number, name);
            }
            room.take_branch()
        })
        .collect();
    bencher.bench_local(|| room.resolve(&states));
}

/// Power levels that changed twice on one branch. Only the auth difference has the first change, so all members are looked at;
/// from version 12 on the subgraph would have it.
#[divan::bench]
fn resolve_an_auth_difference_of_50000_members(bencher: Bencher<'_, '_>) {
    let mut room = Room::new(&RoomVersionId::V11, MEMBERS);
    let mut states = vec![room.take_branch()];
    for level in [60, 70] {
        room.levels(level);
    }
    states.push(room.take_branch());
    bencher.bench_local(|| room.resolve(&states));
}

#[divan::bench(args = [1_000])]
fn resolve_branches(bencher: Bencher<'_, '_>, branches: usize) {
    let mut room = Room::new(&RoomVersionId::V12, 100);
    let states: Vec<StateDelta> = (0..branches)
        .map(|branch| {
            room.send(branch % 2, "m.room.topic", "", &json!({ "topic": branch }));
            room.join(branch % 100, "new");
            room.take_branch()
        })
        .collect();
    bencher.bench_local(|| room.resolve(&states));
}
