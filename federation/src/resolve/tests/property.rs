//! Random rooms: branches that ban, promote, demote, close and open the room and meet again, states with keys that are
//! missing or have gone back, and events that turn out to be rejected. What is resolved with the reduced inputs must be
//! what ruma resolves with everything.

use std::{cell::RefCell, collections::BTreeSet, sync::atomic::Ordering};

use proptest::prelude::*;
use ruma::{OwnedUserId, RoomVersionId};

use super::*;
use crate::supported_room_versions;

const USERS: usize = 5;

const MOST_BRANCHES: usize = 8;

/// A step of a room, by numbers that mean something for each kind.
#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    branch: usize,
    sender: usize,
    other: usize,
    choice: usize,
    /// Few values, so that times are often equal.
    ts: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Join,
    JoinAuthorised,
    Leave,
    Knock,
    Invite,
    Kick,
    Ban,
    Levels,
    JoinRules,
    Topic,
    OwnKey,
    Fork,
    Merge,
}

/// A change of the states before they are resolved.
#[derive(Clone, Debug)]
enum Damage {
    /// A state lacks a key.
    Lacks { state: usize, key: usize },
    /// A state has another event for its key.
    Has { state: usize, event: usize },
    /// All states have this event for its key.
    AllHave { event: usize },
    /// No state has a value for the key of this event.
    NoneHas { event: usize },
    /// The event is rejected.
    Rejected { event: usize },
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        3 => Just(Kind::Join),
        1 => Just(Kind::JoinAuthorised),
        1 => Just(Kind::Leave),
        1 => Just(Kind::Knock),
        2 => Just(Kind::Invite),
        2 => Just(Kind::Kick),
        2 => Just(Kind::Ban),
        4 => Just(Kind::Levels),
        3 => Just(Kind::JoinRules),
        3 => Just(Kind::Topic),
        1 => Just(Kind::OwnKey),
        3 => Just(Kind::Fork),
        2 => Just(Kind::Merge),
    ];
    (kind, 0..MOST_BRANCHES, 0..USERS, 0..USERS, 0..5_usize, 0..6_i64)
        .prop_map(|(kind, branch, sender, other, choice, ts)| Step { kind, branch, sender, other, choice, ts })
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let (state, event) = (0..MOST_BRANCHES, 0..1_000_usize);
    prop_oneof![
        2 => (state.clone(), 0..1_000_usize).prop_map(|(state, key)| Damage::Lacks { state, key }),
        3 => (state, event.clone()).prop_map(|(state, event)| Damage::Has { state, event }),
        1 => event.clone().prop_map(|event| Damage::AllHave { event }),
        1 => event.clone().prop_map(|event| Damage::NoneHas { event }),
        2 => event.prop_map(|event| Damage::Rejected { event }),
    ]
}

struct Branches {
    world: World,
    states: Vec<State>,
    users: Vec<OwnedUserId>,
    sent: usize,
}

impl Branches {
    fn new(version: &RoomVersionId) -> Self {
        let users: Vec<OwnedUserId> =
            (0..USERS).map(|user| format!("@u{user}:s{user}.test").parse().unwrap()).collect();
        let world = World::new(version, &users[0]);
        let state = world.state(&[world.create]);
        let mut branches = Self { world, states: vec![state], users, sent: 0 };
        for (kind, sender) in [(Kind::Join, 0), (Kind::Levels, 0), (Kind::JoinRules, 0), (Kind::Join, 1)] {
            branches.take(&Step { kind, branch: 0, sender, other: 1, choice: 0, ts: 0 });
        }
        branches
    }

    fn take(&mut self, step: &Step) {
        let branch = step.branch % self.states.len();
        match step.kind {
            Kind::Fork if self.states.len() < MOST_BRANCHES => self.states.push(self.states[branch].clone()),
            Kind::Fork => {}
            Kind::Merge => {
                let both = [branch, step.other % self.states.len()].map(|index| self.states[index].clone());
                self.states[branch] = resolve_whole(&self.world, &both).unwrap();
            }
            _ => self.send(branch, step),
        }
    }

    /// Sends an event to a branch. One that is not allowed stays, rejected, and changes no state.
    fn send(&mut self, branch: usize, step: &Step) {
        let (sender, other) = (&self.users[step.sender].clone(), &self.users[step.other].clone());
        let member = |user: &OwnedUserId, membership: &str| {
            ("m.room.member", user.to_string(), json!({ "membership": membership, "n": step.choice }))
        };
        let (event_type, state_key, content) = match step.kind {
            Kind::Join => member(sender, "join"),
            Kind::JoinAuthorised => {
                let content = json!({ "membership": "join", "join_authorised_via_users_server": other });
                ("m.room.member", sender.to_string(), content)
            }
            Kind::Leave => member(sender, "leave"),
            Kind::Knock => member(sender, "knock"),
            Kind::Invite => member(other, "invite"),
            Kind::Kick => member(other, "leave"),
            Kind::Ban => member(other, "ban"),
            Kind::Levels => ("m.room.power_levels", String::new(), self.levels(branch, other, step.choice)),
            Kind::JoinRules => {
                let rule = ["public", "invite", "knock", "restricted", "public"][step.choice];
                let content =
                    json!({ "join_rule": rule, "allow": [{ "type": "m.room_membership", "room_id": "!o:a.test" }] });
                ("m.room.join_rules", String::new(), content)
            }
            Kind::Topic => ("m.room.topic", ["", "x"][step.choice % 2].to_owned(), json!({ "topic": step.choice })),
            Kind::OwnKey => ("org.example.own", sender.to_string(), json!({})),
            Kind::Fork | Kind::Merge => return,
        };
        // IDs in no order: they decide where levels and times are equal.
        let event_id = format!("${:04x}", (self.sent * 40_503 + 1) % 65_536).parse().unwrap();
        self.sent += 1;
        let state_key = Some(state_key.as_str());
        let event = NewEvent { event_id, sender, event_type, state_key, content, ts: step.ts };
        let nid = self.world.send(&self.states[branch], event);
        if self.world.allows(&self.states[branch], nid) {
            self.world.set(&mut self.states[branch], nid);
        } else {
            self.world.reject(nid);
        }
    }

    /// The power levels of a branch with another one for a user.
    fn levels(&mut self, branch: usize, user: &OwnedUserId, choice: usize) -> JsonValue {
        let key = self.world.key_of("m.room.power_levels", "");
        let mut users = match self.states[branch].get(&key) {
            Some(held) => {
                let content: JsonValue = serde_json::from_str(self.world.pdu(held.event_nid).content.get()).unwrap();
                content["users"].clone()
            }
            None if self.world.rules.authorization.explicitly_privilege_room_creators => json!({}),
            None => json!({ self.users[0].as_str(): 100 }),
        };
        let is_creator = *user == self.users[0];
        if !(is_creator && self.world.rules.authorization.explicitly_privilege_room_creators) {
            users[user.as_str()] = [50, 100, 0, 25, 75][choice].into();
        }
        json!({ "users": users, "invite": 50 * (choice % 2) })
    }

    fn damage(&mut self, damage: &Damage) {
        let count = self.states.len();
        // The create event is in every state, and is never rejected.
        let nids: Vec<EventNid> = self.world.nids().skip(1).collect();
        match *damage {
            Damage::Lacks { state, key } => {
                let state = &mut self.states[state % count];
                let keys: Vec<_> = state.keys().skip(1).copied().collect();
                if !keys.is_empty() {
                    state.remove(&keys[key % keys.len()]);
                }
            }
            Damage::Has { state, event } => self.world.set(&mut self.states[state % count], nids[event % nids.len()]),
            Damage::AllHave { event } => {
                for state in &mut self.states {
                    self.world.set(state, nids[event % nids.len()]);
                }
            }
            Damage::NoneHas { event } => {
                let key = self.world.auth_node(nids[event % nids.len()]).key.unwrap();
                for state in &mut self.states {
                    state.remove(&key);
                }
            }
            Damage::Rejected { event } => self.world.reject(nids[event % nids.len()]),
        }
    }
}

/// The number of random rooms that were not simple, so that a property of nothing but simple ones is seen.
#[derive(Default, Debug)]
struct Seen {
    rooms: usize,
    /// Events were resolved that no state has.
    more_events: usize,
    /// All unconflicted values were looked at for the auth difference.
    whole_states: usize,
    /// The result has a key that no state has.
    new_keys: usize,
    /// The result lacks a conflicted key.
    removed_keys: usize,
}

fn check(version: &RoomVersionId, steps: &[Step], damages: &[Damage], base: usize, repeats: bool, seen: &mut Seen) {
    let mut branches = Branches::new(version);
    steps.iter().for_each(|step| branches.take(step));
    if branches.states.len() == 1 {
        branches.states.push(branches.states[0].clone());
    }
    damages.iter().for_each(|damage| branches.damage(damage));
    let Branches { mut world, states, .. } = branches;

    // The log is one of the states, a state that none of them is, or empty.
    for (position, state) in (1..).zip(&states) {
        world.log.insert(Position(position), state.clone());
    }
    let base = Position((base % (states.len() + 1)).try_into().unwrap());
    let expected = resolve_whole(&world, &states).unwrap();
    let mut deltas: Vec<StateDelta> = states.iter().map(|state| world.delta(state, base)).collect();
    if repeats {
        // Deltas may say what is as in the log, and states may be given twice.
        let in_log = world.with(base, &StateDelta::default());
        for delta in &mut deltas {
            *delta = in_log.iter().map(|(key, held)| (*key, Some(*held))).collect::<StateDelta>().then(delta);
        }
        deltas.push(deltas[0].clone());
    }
    let prepared = ready(prepare(&world, &conflict(&world, base, &deltas))).unwrap();
    let full = whole::full_conflicted_set(&world, &states);
    assert!(prepared.full.keys().eq(&full), "{version}: {:?} is {full:?}", prepared.full);
    let resolved = prepared.run().unwrap();
    assert_eq!(world.with(base, &resolved.changes), expected, "{version}");
    assert_eq!(resolve_reduced(&world, base, &states).unwrap(), expected, "{version}");

    let all_keys: BTreeSet<_> = states.iter().flat_map(State::keys).copied().collect();
    let mut conflicted = all_keys.iter().filter(|key| states.iter().any(|state| state.get(key) != states[0].get(key)));
    let is_value = |nid: &&EventNid| states.iter().any(|state| state.values().any(|held| held.event_nid == **nid));
    seen.rooms += 1;
    seen.more_events += usize::from(!full.iter().all(|nid| is_value(&nid)));
    seen.whole_states += usize::from(world.counts.wholes.load(Ordering::Relaxed) > 0);
    seen.new_keys += usize::from(expected.keys().any(|key| !all_keys.contains(key)));
    seen.removed_keys += usize::from(conflicted.any(|key| !expected.contains_key(key)));
}

#[test]
fn the_reduced_inputs_resolve_to_the_same_state_as_everything() {
    let seen = RefCell::<Seen>::default();
    let steps = prop::collection::vec(any_step(), 5..80);
    let damages = prop::collection::vec(any_damage(), 0..6);
    let older = prop::sample::select(supported_room_versions().split_last().unwrap().1);
    let room = (steps, damages, 0..MOST_BRANCHES + 1, any::<bool>(), older);
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((steps, damages, base, repeats, older) in room)| {
        // Each room in an older version and in version 12, which resolves in another way.
        for version in [older, RoomVersionId::V12] {
            check(&version, &steps, &damages, base, repeats, &mut seen.borrow_mut());
        }
    });
    let seen = seen.into_inner();
    for (count, one_in) in [(seen.more_events, 3), (seen.whole_states, 5), (seen.new_keys, 50), (seen.removed_keys, 5)]
    {
        assert!(count * one_in >= seen.rooms, "one in {one_in} is expected: {seen:?}");
    }
}
