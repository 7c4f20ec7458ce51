//! Resolution with reduced inputs: against ruma with everything on random rooms, on ruma's fixtures, and on rooms made by
//! hand for what random ones seldom have.

mod alarms;
mod by_hand;
mod cost;
mod fixtures;
mod property;
pub(crate) mod whole;

use ruma::{OwnedEventId, UserId, user_id};
use serde_json::{Value as JsonValue, json};

use self::whole::resolve_whole;
use super::{Conflict, ResolveError, Resolved, RunError, prepare};
use crate::{
    held::StateDelta,
    ids::{EventNid, Position},
    test_ready::ready,
    test_world::{NewEvent, NotInWorld, State, World},
};

/// Resolves differences to the log.
fn resolve_deltas(world: &World, base: Position, states: &[StateDelta]) -> Result<Resolved, ResolveError<NotInWorld>> {
    Ok(ready(prepare(world, &conflict(world, base, states)))?.run().unwrap())
}

fn conflict<'a>(world: &'a World, base: Position, states: &'a [StateDelta]) -> Conflict<'a> {
    let states = states.iter().collect();
    Conflict { base, states, rules: &world.rules, room_id: &world.room_id, create: world.create }
}

/// Resolves whole states to a whole state.
fn resolve_reduced(world: &World, base: Position, states: &[State]) -> Result<State, ResolveError<NotInWorld>> {
    let deltas: Vec<StateDelta> = states.iter().map(|state| world.delta(state, base)).collect();
    let resolved = resolve_deltas(world, base, &deltas)?;
    let whole = world.with(base, &resolved.changes);
    assert_eq!(world.delta(&whole, base), resolved.changes, "no change is as in the log");
    for (state, delta) in states.iter().zip(&deltas) {
        assert_eq!(with(state, &resolved.against(delta)), whole, "the result is the same against each of the states");
    }
    Ok(whole)
}

fn with(state: &State, delta: &StateDelta) -> State {
    let mut state = state.clone();
    for (key, held) in delta.iter() {
        match held {
            Some(held) => drop(state.insert(key, held)),
            None => drop(state.remove(&key)),
        }
    }
    state
}

/// The position before everything, at which the log's state is empty.
const EMPTY_LOG: Position = Position(0);

fn alice() -> &'static UserId {
    user_id!("@alice:a.test")
}

fn bob() -> &'static UserId {
    user_id!("@bob:b.test")
}

/// A room and the state of its newest event, for tests that write down what happens.
struct Room {
    world: World,
    state: State,
    sent: u64,
}

impl Room {
    /// Alice's room, which anyone may join. Bob has joined, and may send state.
    fn new(version: &ruma::RoomVersionId) -> Self {
        let world = World::new(version, alice());
        let state = world.state(&[world.create]);
        let mut room = Self { world, state, sent: 0 };
        room.join(alice());
        room.send(alice(), "m.room.power_levels", "", room.levels(50));
        room.send(alice(), "m.room.join_rules", "", json!({ "join_rule": "public" }));
        room.join(bob());
        room
    }

    /// Power levels with this one for Bob.
    fn levels(&self, of_bob: i64) -> JsonValue {
        // From version 12 on, the creator is above the power levels and must not be listed.
        let is_listed = !self.world.rules.authorization.explicitly_privilege_room_creators;
        let mut users = json!({ bob(): of_bob });
        if is_listed {
            users[alice().as_str()] = 100.into();
        }
        json!({ "users": users })
    }

    /// Sends a state event that the room allows, and goes on with its state.
    fn send(&mut self, sender: &UserId, event_type: &str, state_key: &str, content: JsonValue) -> EventNid {
        let nid = self.make(sender, event_type, state_key, content);
        assert!(self.world.allows(&self.state, nid), "{event_type} of {sender} is allowed");
        self.world.set(&mut self.state, nid);
        nid
    }

    /// Sends a state event on the room's state, which stays as it is.
    fn make(&mut self, sender: &UserId, event_type: &str, state_key: &str, content: JsonValue) -> EventNid {
        self.sent += 1;
        let event_id: OwnedEventId = format!("$e{}", self.sent).parse().unwrap();
        let state_key = Some(state_key);
        let event = NewEvent { event_id, sender, event_type, state_key, content, ts: self.sent.try_into().unwrap() };
        self.world.send(&self.state, event)
    }

    fn join(&mut self, user: &UserId) -> EventNid {
        self.send(user, "m.room.member", user.as_str(), json!({ "membership": "join" }))
    }

    /// Goes back to an earlier state, and returns the one that was reached.
    fn back_to(&mut self, state: &State) -> State {
        std::mem::replace(&mut self.state, state.clone())
    }

    /// Resolves both ways, which must give the same, and returns it.
    fn resolve(&self, states: &[State]) -> State {
        let reduced = resolve_reduced(&self.world, EMPTY_LOG, states).unwrap();
        assert_eq!(reduced, resolve_whole(&self.world, states).unwrap());
        reduced
    }
}
