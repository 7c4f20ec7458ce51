use std::pin::pin;

use super::*;

const USER: UserNid = UserNid(1);
const ROOM: RoomNid = RoomNid(1);
const OTHER: RoomNid = RoomNid(18);

fn live(bus: &Bus, now_ms: i64) -> Arc<LiveUser> {
    bus.live(USER, Position::BEFORE_ALL, now_ms)
}

/// The rooms that a look visits, and whether it need not ask for more.
fn dirty(live: &LiveUser, since: i64, ephemeral: u64) -> (Vec<i64>, bool) {
    let dirty = live.dirty_since(Position(since), ephemeral);
    let mut rooms: Vec<_> = dirty.rooms.into_iter().map(|room| room.0).collect();
    rooms.sort_unstable();
    (rooms, dirty.reaches_back && dirty.ephemeral_reaches_back)
}

/// Returns whether `then` wakes a request that waits.
fn is_woken(live: &LiveUser, then: impl FnOnce()) -> bool {
    let mut wake = pin!(live.next_wake().expect("the user is live"));
    wake.as_mut().enable();
    then();
    wake.enable()
}

#[test]
fn who_has_just_come_is_not_forgotten() {
    let bus = Bus::default();
    live(&bus, 5);
    bus.watch(USER, ROOM);
    let back = live(&bus, 20);
    bus.forget_idle(10);
    assert!(bus.is_live(USER));
    bus.mark_room(ROOM, Position(7));
    assert_eq!(back.latest(), Position(7));
}

#[test]
fn a_mark_is_seen_at_once_and_wakes_later_and_once() {
    let bus = Bus::default();
    let live = live(&bus, 5);
    bus.watch(USER, ROOM);
    bus.wake_marked(Position(6));
    assert!(!is_woken(&live, || bus.mark_room(ROOM, Position(7))), "its position is not visible yet");
    assert_eq!(live.latest(), Position(7));
    bus.mark_user(USER, Position(9));
    assert!(is_woken(&live, || bus.wake_marked(Position(9))));
    assert_eq!(live.latest(), Position(9));
    assert!(!is_woken(&live, || bus.wake_marked(Position(9))), "there is nothing new");
    assert!(is_woken(&live, || {
        bus.mark_everyone(Position(11));
        bus.wake_marked(Position(11));
    }));
}

#[test]
fn who_is_woken_too_early_is_woken_again() {
    let bus = Bus::default();
    let live = live(&bus, 5);
    bus.watch(USER, ROOM);
    bus.mark_room(ROOM, Position(7));
    // The next commit has marked already when the notifier comes to wake for the one before.
    bus.mark_room(ROOM, Position(8));
    assert!(is_woken(&live, || bus.wake_marked(Position(7))));
    assert!(is_woken(&live, || bus.wake_marked(Position(8))), "only now its position is visible");
    assert!(!is_woken(&live, || bus.wake_marked(Position(8))));
}

#[test]
fn receipts_wake_later_unless_there_is_other_news() {
    let bus = Bus::default();
    let reader = UserNid(2);
    let other = bus.live(reader, Position::BEFORE_ALL, 5);
    let live = live(&bus, 5);
    bus.watch(USER, ROOM);
    bus.wake_marked(Position::BEFORE_ALL);
    bus.mark_receipts(reader, ROOM, true, Position(7));
    assert_eq!((dirty(&live, 0, 0).0, dirty(&other, 0, 0).0), (vec![1], vec![1]), "a look finds them at once");
    assert!(!is_woken(&live, || bus.wake_marked(Position(7))));
    assert!(is_woken(&live, || bus.wake_for_receipts(Position(7))));
    bus.mark_receipts(reader, ROOM, false, Position(8));
    assert_eq!((dirty(&live, 7, 0).0, dirty(&other, 7, 0).0), (vec![], vec![1]), "nobody else sees a private one");
    bus.mark_receipts(reader, ROOM, true, Position(9));
    bus.mark_room(ROOM, Position(10));
    assert!(is_woken(&live, || bus.wake_marked(Position(10))));
    assert!(!is_woken(&live, || bus.wake_for_receipts(Position(10))));
}

#[test]
fn the_set_names_the_rooms_of_all_news_that_is_in_a_room() {
    let bus = Bus::default();
    let live = live(&bus, 5);
    bus.watch_all(&live, &[ROOM, OTHER]);
    assert_eq!(dirty(&live, 0, 0), (vec![], true));
    let check = |since, ephemeral, mark: &dyn Fn(), expected: &[i64]| {
        mark();
        assert_eq!(dirty(&live, since, ephemeral), (expected.to_vec(), true));
    };
    check(1, 0, &|| bus.mark_room(OTHER, Position(2)), &[18]);
    check(2, 0, &|| bus.mark_room(RoomNid(3), Position(3)), &[]);
    check(3, 0, &|| bus.mark_user_in(USER, RoomNid(3), Position(4)), &[3]);
    check(4, 0, &|| bus.mark_receipts(UserNid(2), ROOM, true, Position(5)), &[1]);
    check(5, 0, &|| _ = bus.next_ephemeral_in(ROOM), &[1]);
    // A look finds this news without visiting a room.
    let without_a_room: [&dyn Fn(); 3] =
        [&|| bus.mark_user(USER, Position(6)), &|| bus.mark_members(&[ROOM, OTHER], Position(7)), &|| {
            bus.mark_everyone(Position(8))
        }];
    for mark in without_a_room {
        let before = live.latest();
        check(5, 1, mark, &[]);
        assert!(live.latest() > before);
    }
    check(8, 1, &|| bus.wake_room_ephemeral(ROOM, bus.next_ephemeral()), &[]);
    assert_eq!(live.latest_ephemeral(), 2);
}

#[test]
fn a_number_is_visible_only_after_its_marks() {
    let bus = Bus::default();
    let live = live(&bus, 5);
    bus.watch(USER, ROOM);
    bus.number_change(|number| {
        assert_eq!((number, bus.ephemeral()), (1, 0));
        // A user who becomes live now may miss the marks of this number, and asks for everything up to it.
        let late = bus.live(UserNid(2), Position::BEFORE_ALL, 5);
        assert!(!late.dirty_since(Position::BEFORE_ALL, 0).ephemeral_reaches_back);
        bus.watch(USER, OTHER);
    });
    assert_eq!(bus.ephemeral(), 1);
    assert_eq!(dirty(&live, 0, 0), (vec![18], true));
}

#[test]
fn who_comes_between_a_mark_and_its_position_has_the_news() {
    // The user becomes live, and watches the room: each after the mark and before the wake.
    let marks: [fn(&Bus); 2] = [|bus| bus.mark_user(USER, Position(7)), |bus| bus.mark_room(ROOM, Position(7))];
    for mark in marks {
        let bus = Bus::default();
        mark(&bus);
        let live = live(&bus, 5);
        bus.watch_all(&live, &[ROOM]);
        assert_eq!(live.latest(), Position(7));
        assert!(!dirty(&live, 6, 0).1, "the set does not claim to know of it");
        assert!(is_woken(&live, || bus.wake_marked(Position(7))));
    }
    type Watch = fn(&Bus, &Arc<LiveUser>);
    let watches: [(Watch, bool); 2] =
        [(|bus, _| bus.watch(USER, ROOM), true), (|bus, live| bus.watch_all(live, &[ROOM]), false)];
    for (watch, reaches_back) in watches {
        let bus = Bus::default();
        let live = live(&bus, 5);
        bus.mark_room(ROOM, Position(7));
        let number = bus.next_ephemeral_in(ROOM);
        bus.wake_room_ephemeral(ROOM, number);
        assert_eq!((live.latest(), live.latest_ephemeral()), (Position::BEFORE_ALL, 0), "the room is not watched");
        watch(&bus, &live);
        assert_eq!((live.latest(), live.latest_ephemeral()), (Position(7), number));
        // One room is added to the set; of many rooms, the set says that it does not know them.
        let found = dirty(&live, 6, 0);
        assert_eq!(found, if reaches_back { (vec![1], true) } else { (vec![], false) });
        assert_eq!(dirty(&live, 7, number), (vec![], true));
        assert!(is_woken(&live, || bus.wake_marked(Position(7))));
    }
}

#[test]
fn who_was_forgotten_watches_anew() {
    let bus = Bus::default();
    let before = live(&bus, 5);
    bus.watch_all(&before, &[ROOM, OTHER]);
    assert!(is_woken(&before, || bus.forget_idle(10)), "a request that waits goes on");
    assert!(!bus.is_live(USER) && before.next_wake().is_none());
    let after = live(&bus, 20);
    // A request from before still holds its entry. It must not take the place of the new one.
    bus.watch(USER, ROOM);
    bus.watch_all(&before, &[ROOM, OTHER]);
    bus.mark_room(ROOM, Position(7));
    bus.mark_room(OTHER, Position(8));
    assert_eq!((before.latest(), after.latest()), (Position::BEFORE_ALL, Position(7)));
    assert!(!dirty(&before, 8, 0).1, "it misses marks, and knows that");
}

#[test]
fn who_has_left_a_room_is_not_marked_for_it() {
    let bus = Bus::default();
    let live = live(&bus, 5);
    bus.watch(USER, ROOM);
    bus.departed(USER, ROOM);
    bus.mark_room(ROOM, Position(7));
    assert_eq!(live.latest(), Position::BEFORE_ALL);
}

#[test]
fn many_users_watch_many_rooms_again_after_they_were_forgotten() {
    let bus = Bus::default();
    let rooms: Vec<_> = (1..=40).map(RoomNid).collect();
    for round in 1..=2 {
        for user in 1..=1_000 {
            let live = bus.live(UserNid(user), Position::BEFORE_ALL, round);
            bus.watch_all(&live, &rooms);
        }
        bus.mark_room(RoomNid(40), Position(round));
        for user in 1..=1_000 {
            assert_eq!(bus.live(UserNid(user), Position::BEFORE_ALL, round).latest(), Position(round));
        }
        bus.forget_idle(round + 1);
        assert!(!bus.is_live(USER));
    }
}

#[test]
fn ten_thousand_users_of_a_room_come_back_and_nobody_scans_them_under_a_lock() {
    for users in [1_000, 10_000] {
        let bus = Bus::default();
        let come = |round: i64| {
            for user in 1..=users {
                let live = bus.live(UserNid(user), Position::BEFORE_ALL, round);
                bus.watch_all(&live, &[ROOM]);
            }
        };
        come(1);
        bus.forget_idle(2);
        let work = counted::during(|| come(2));
        let users = usize::try_from(users).unwrap();
        assert_eq!((work.locks, work.visited), (2 * users, 0), "one lock for the user, and one for the room");
        // Three look-ups each: the user, the room, the user in the room. Maps that grow hash each key less than twice more.
        assert!((3 * users..=7 * users).contains(&work.hashed), "{work:?} for {users} users");
        let work = counted::during(|| bus.mark_room(ROOM, Position(7)));
        assert_eq!((work.locks, work.visited), (1, users), "a mark does visit each of them, once");
    }
}
