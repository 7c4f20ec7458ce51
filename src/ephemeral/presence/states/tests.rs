//! Changes of a user's presence, as a table of steps with a clock that is moved by hand.

use ruma::user_id;

use super::*;
use Availability::{Offline, Online, Unavailable};

const ALICE: UserNid = UserNid(1);
const MINUTE: i64 = 60_000;

struct World {
    states: States,
    now: i64,
    last: u64,
}

/// A step of a test.
#[derive(Debug, Clone, Copy)]
enum Step {
    SyncBegins(Availability),
    SyncEnds,
    Acts,
    Chooses(Availability),
    Passes(i64),
}
use Step::{Acts, Chooses, Passes, SyncBegins, SyncEnds};

impl World {
    fn new() -> Self {
        Self { states: States::default(), now: 1_000_000, last: 0 }
    }

    fn step(&mut self, step: Step) {
        let alice = (ALICE, user_id!("@alice:example.org"));
        let now = self.now;
        let last = &mut self.last;
        let mut number = || {
            *last += 1;
            *last
        };
        match step {
            SyncBegins(asked) => {
                self.states.sync_began(alice, asked, now, number);
            }
            SyncEnds => self.states.sync_ended(ALICE, now),
            Acts => {
                self.states.active(alice, now, number);
            }
            Chooses(availability) => {
                self.states.set(alice, availability, None, now, number);
            }
            Passes(ms) => {
                self.now += ms;
                self.states.expire(self.now, &mut number);
            }
        }
    }
}

#[test]
fn presence_follows_what_the_user_does() {
    let check = |steps: &[Step], expected: Availability| {
        let mut world = World::new();
        for step in steps {
            world.step(*step);
        }
        assert_eq!(world.states.status(ALICE, world.now).availability, expected, "{steps:?}");
    };
    check(&[], Offline);
    check(&[SyncBegins(Online)], Online);
    check(&[SyncBegins(Unavailable)], Unavailable);
    // Activity does not reveal a user who is offline or who chose to look offline.
    check(&[Acts], Offline);
    check(&[Chooses(Offline), Acts], Offline);
    check(&[Chooses(Unavailable), Acts], Online);
    check(&[Chooses(Unavailable)], Unavailable);
    // A user is offline half a minute after the last sync, but not during one.
    check(&[SyncBegins(Online), SyncEnds, Passes(29_999)], Online);
    check(&[SyncBegins(Online), SyncEnds, Passes(30_000)], Offline);
    check(&[SyncBegins(Online), Passes(MINUTE)], Online);
    check(&[SyncBegins(Online), SyncBegins(Online), SyncEnds, Passes(MINUTE)], Online);
    // A user is unavailable after five minutes without activity. Syncing is not activity.
    check(&[SyncBegins(Online), Passes(5 * MINUTE - 1)], Online);
    check(&[SyncBegins(Online), Passes(5 * MINUTE)], Unavailable);
    check(&[SyncBegins(Online), Passes(5 * MINUTE), SyncBegins(Online)], Unavailable);
    check(&[SyncBegins(Online), Passes(5 * MINUTE), Acts], Online);
    check(&[SyncBegins(Online), Passes(4 * MINUTE), Acts, Passes(4 * MINUTE)], Online);
    // A client may report that its user went away and came back.
    check(&[SyncBegins(Online), SyncEnds, SyncBegins(Unavailable)], Unavailable);
    check(&[SyncBegins(Online), SyncBegins(Unavailable)], Online);
    check(&[SyncBegins(Unavailable), SyncEnds, SyncBegins(Online)], Online);
    // The user's choice stays while they sync, but a syncing user is not offline.
    check(&[Chooses(Unavailable), SyncBegins(Online)], Unavailable);
    check(&[SyncBegins(Unavailable), SyncEnds, Chooses(Unavailable), SyncBegins(Online)], Unavailable);
    check(&[Chooses(Offline), SyncBegins(Online)], Online);
}

#[test]
fn only_a_change_is_news() {
    let mut world = World::new();
    world.step(SyncBegins(Online));
    assert_eq!(world.states.changed_since(0, 10).len(), 1);
    world.step(SyncBegins(Online));
    world.step(Acts);
    assert_eq!(world.last, 1, "being there still is no change");
    assert_eq!(world.states.changed_since(1, 10), []);
    world.step(Chooses(Unavailable));
    assert_eq!(world.states.changed_since(1, 10).len(), 1);
    assert_eq!(world.states.changes.len(), 1, "one entry for each user");
}

#[test]
fn who_is_offline_is_no_news_to_a_client_that_knows_nothing() {
    let mut world = World::new();
    world.step(SyncBegins(Online));
    world.step(SyncEnds);
    world.step(Passes(MINUTE));
    assert_eq!(world.states.changed_since(0, 10), []);
    assert_eq!(world.states.changed_since(1, 10).len(), 1);
}

#[test]
fn who_is_offline_for_long_is_forgotten() {
    let mut world = World::new();
    world.step(SyncBegins(Online));
    world.states.forget_offline(i64::MAX);
    assert_eq!(world.states.users.len(), 1, "they are here");
    world.step(SyncEnds);
    world.step(Passes(MINUTE));
    world.states.forget_offline(world.now - 2 * MINUTE);
    assert_eq!(world.states.users.len(), 1, "they were here lately");
    world.states.forget_offline(world.now);
    assert_eq!((world.states.users.len(), world.states.changes.len()), (0, 0));
    assert_eq!(world.states.status(ALICE, world.now).availability, Offline);
    world.step(SyncBegins(Online));
    assert_eq!(world.states.status(ALICE, world.now).availability, Online);

    let alice = (ALICE, user_id!("@alice:example.org"));
    world.step(SyncEnds);
    world.states.set(alice, Offline, Some("on holiday".to_owned()), world.now, || 100);
    world.states.forget_offline(i64::MAX);
    assert_eq!(world.states.status(ALICE, world.now).status_msg.as_deref(), Some("on holiday"));
}

#[test]
fn nothing_is_due_when_nobody_is_there() {
    let mut world = World::new();
    assert_eq!(world.states.next_due(), None);
    world.step(SyncBegins(Online));
    assert!(world.states.next_due().is_some());
    world.step(SyncEnds);
    world.step(Passes(MINUTE));
    assert_eq!(world.states.next_due(), None);
}

#[test]
fn changes_that_come_too_fast_are_told_together() {
    let mut world = World::new();
    for change in 0..3 * CHANGES_AT_ONCE {
        world.step(Chooses(if change % 2 == 0 { Online } else { Unavailable }));
    }
    assert_eq!(world.states.status(ALICE, world.now).availability, Unavailable, "the state itself is not late");
    assert_eq!(i64::try_from(world.last), Ok(CHANGES_AT_ONCE), "each number wakes everyone in the same rooms");
    assert!(world.states.has_untold());
    let told = world.last;
    world.step(Passes(CHANGE_EVERY_MS));
    assert_eq!(world.states.changed_since(told, 10).len(), 1);
    assert!(!world.states.has_untold());
    assert_eq!(world.last, told + 1);
}

#[test]
fn an_end_that_came_too_fast_is_told_though_nobody_is_there() {
    let mut world = World::new();
    for _ in 0..CHANGES_AT_ONCE {
        world.step(Chooses(Online));
        world.step(Chooses(Offline));
    }
    assert_eq!(world.states.present, 0);
    let told = world.last;
    assert!(world.states.has_untold() && world.states.next_due().is_some());
    world.step(Passes(CHANGE_EVERY_MS));
    assert_eq!(world.states.changed_since(told, 10).len(), 1);
    assert_eq!(world.states.next_due(), None);
}
