//! Rings that are filled and read, and rings that are full together.

use ruma::{RoomVersionId, event_id};
use sabha_federation::{
    Pdu,
    standing::{Flags, Standing, StateAt},
};
use serde_json::json;

use super::*;
use crate::store::{EventNid, RoomNid, TimelinePlace};

fn event(number: i64) -> (Position, Arc<StoredEvent>) {
    event_with(number, "hello")
}

fn event_with(number: i64, body: &str) -> (Position, Arc<StoredEvent>) {
    let rules = RoomVersionId::V11.rules().expect("a known version");
    let json = json!({ "room_id": "!r:localhost", "sender": "@a:localhost", "type": "m.room.message",
        "content": { "body": body }, "depth": number, "origin_server_ts": 1, "prev_events": [], "auth_events": [],
        "hashes": { "sha256": "" }, "signatures": {} });
    let pdu = Pdu::from_stored(&rules, event_id!("$e").to_owned(), json.to_string()).expect("an event");
    let (nid, pos) = (EventNid(number), Position(number));
    let place = Some(TimelinePlace::on_line(pos));
    let standing = Standing { flags: Flags::NONE, place, before: StateAt::EMPTY };
    let stored = StoredEvent::new(nid, RoomNid(1), standing, 0, None, Arc::new(pdu), None, None);
    (pos, Arc::new(stored))
}

fn held(ring: &Ring) -> usize {
    ring.latest(Position(i64::MAX), 1).map_or(0, |_| ring.events.len())
}

#[test]
fn a_ring_that_was_filled_reaches_back_to_its_first_event() {
    let rings = Rings::of_share(1 << 30);
    let events: Vec<_> = (5..=9).map(event).collect();
    for (is_all, from) in [(false, 4), (true, 0)] {
        let mut ring = Ring::new(Position(9), Arc::clone(&rings));
        ring.fill(&events, is_all);
        assert_eq!(ring.between(Position(from), Position(9)).map(|events| events.len()), Some(5));
        assert_eq!(ring.between(Position(3), Position(9)).is_some(), is_all);
        assert_eq!(ring.latest(Position(9), 6).is_some(), is_all);
    }
}

#[test]
fn a_ring_shows_the_new_standing_of_an_event_and_lets_one_without_a_place_go() {
    let rings = Rings::of_share(1 << 30);
    let mut ring = Ring::new(Position::BEFORE_ALL, Arc::clone(&rings));
    ring.extend(&(1..=70).map(event).collect::<Vec<_>>());
    let span = |ring: &Ring| ring.span(Position(60), Position(70)).expect("it reaches back").expect("it has events");
    let (before, bytes) = (span(&ring), rings.bytes.load(Ordering::Relaxed));
    let standing = |place| Standing { flags: Flags::CLAIMED, place, before: StateAt::in_log(Position(7)) };
    ring.restate(EventNid(65), standing(Some(TimelinePlace::on_line(Position(65)))));
    let held = ring.between(Position(64), Position(65)).expect("it reaches back");
    assert_eq!(held[0].1.standing.flags, Flags::CLAIMED);
    assert_eq!((span(&ring).events, rings.bytes.load(Ordering::Relaxed)), (10, bytes));
    assert_ne!(span(&ring), before, "what was made of the events is outdated");

    ring.restate(EventNid(66), standing(None));
    ring.restate(EventNid(67), standing(Some(TimelinePlace::on_line(Position(80)))));
    let held = ring.between(Position(64), Position(68)).expect("it reaches back");
    assert_eq!(held.iter().map(|(pos, _)| pos.0).collect::<Vec<_>>(), [65, 68]);
    assert!(rings.bytes.load(Ordering::Relaxed) < bytes);
    // One of which only the place is known.
    ring.shrink(Rest::Nothing);
    ring.restate(EventNid(69), standing(None));
    let places = ring.latest_places(Position(70), 3).expect("it knows as many");
    assert_eq!(places.iter().map(|(pos, _)| pos.0).collect::<Vec<_>>(), [65, 68, 70]);
    drop(ring);
    assert_eq!(rings.bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_ring_that_was_shrunk_still_has_the_places_of_its_latest_events() {
    let rings = Rings::of_share(1 << 30);
    let places = |ring: &Ring, upto, limit| {
        let places = ring.latest_places(Position(upto), limit);
        places.map(|places| places.iter().map(|(Position(pos), EventNid(nid))| (*pos, *nid)).collect::<Vec<_>>())
    };
    let all = |range: std::ops::RangeInclusive<i64>| Some(range.map(|number| (number, number)).collect::<Vec<_>>());
    let events: Vec<_> = (1..=100).map(event).collect();
    for (sent, rest) in [(100, Rest::Few), (100, Rest::Nothing), (10, Rest::Few), (10, Rest::Nothing)] {
        let mut ring = Ring::new(Position::BEFORE_ALL, Arc::clone(&rings));
        ring.extend(&events[..sent]);
        let sent = i64::try_from(sent).expect("few");
        assert_eq!(places(&ring, sent, 4), all(sent - 3..=sent), "before");
        ring.shrink(rest);
        assert!(ring.latest(Position(sent), FEW_EVENTS + 1).is_none(), "{rest:?}");
        assert_eq!(places(&ring, sent, 4), all(sent - 3..=sent), "{rest:?}");
        assert_eq!(places(&ring, sent - 2, 4), all(sent - 5..=sent - 2), "{rest:?}");
        // The room with ten events has no others.
        let most = if sent == 10 { all(1..=10) } else { all(sent - 23..=sent) };
        assert_eq!(places(&ring, sent, PLACES), most, "{rest:?}");
        assert_eq!(places(&ring, sent, PLACES + 1).is_some(), sent == 10, "{rest:?}");
        ring.extend(&[event(sent + 1)]);
        assert_eq!(places(&ring, sent + 1, 4), all(sent - 2..=sent + 1), "{rest:?}");
        assert!(ring.dropped.len() + ring.events.len() <= PLACES);
    }
    let mut ring = Ring::new(Position(90), rings);
    ring.extend(&events[90..]);
    ring.shrink(Rest::Nothing);
    assert_eq!(places(&ring, 100, 10), all(91..=100));
    assert!(places(&ring, 100, 11).is_none(), "nobody knows what came before");
}

#[test]
fn a_span_is_the_same_for_all_ranges_with_the_same_events_until_one_changes() {
    let rings = Rings::of_share(1 << 30);
    let mut ring = Ring::new(Position(4), Arc::clone(&rings));
    ring.extend(&[event(5), event(7), event(9)]);
    let span = |ring: &Ring, after, upto| ring.span(Position(after), Position(upto)).map_err(|NotInRing| ());
    let all = span(&ring, 4, 9).expect("it reaches back that far").expect("there are events");
    assert_eq!(all.events, 3);
    assert_eq!(span(&ring, 4, 12), Ok(Some(all)));
    assert_ne!(span(&ring, 4, 8), Ok(Some(all)));
    assert_eq!(span(&ring, 5, 7), span(&ring, 6, 8));
    for (after, upto) in [(9, 12), (5, 6), (8, 5)] {
        assert_eq!(span(&ring, after, upto), Ok(None));
    }
    assert_eq!(span(&ring, 3, 9), Err(()));
    ring.replace(&event(7).1);
    assert_ne!(span(&ring, 4, 9), Ok(Some(all)));
    let mut loaded_again = Ring::new(Position(4), rings);
    loaded_again.extend(&[event(5), event(7), event(9)]);
    assert_ne!(span(&loaded_again, 4, 9), Ok(Some(all)));
}

#[test]
fn rings_that_are_full_together_keep_few_events_each() {
    let weight = event(1).1.weight();
    // Room for a whole ring and a half.
    let rings = Rings::of_share(weight * RING_EVENTS as u64 * 3 / 2);
    let (mut first, mut second) =
        (Ring::new(Position(0), Arc::clone(&rings)), Ring::new(Position(0), Arc::clone(&rings)));
    let events: Vec<_> = (1..=100).map(event).collect();
    first.extend(&events);
    assert_eq!(held(&first), RING_EVENTS, "nobody else needs the room");
    second.extend(&events);
    assert!((FEW_EVENTS..RING_EVENTS).contains(&held(&second)), "{}", held(&second));
    assert!(rings.bytes.load(Ordering::Relaxed) <= rings.share + weight);
    first.extend(&[event(101)]);
    assert!(first.between(Position(100), Position(101)).is_some_and(|events| events.len() == 1), "the newest stays");
    drop((first, second));
    assert_eq!(rings.bytes.load(Ordering::Relaxed), 0, "a room that is evicted gives its bytes back");
}

/// A ring for each of `rooms`, of which the last has the latest event, with `events` events each.
fn filled(rings: &Arc<Rings>, rooms: i64, events: i64, body: &str) -> Vec<std::cell::RefCell<Ring>> {
    let rings = (0..rooms).map(|room| {
        let mut ring = Ring::new(Position(0), Arc::clone(rings));
        for number in 1..=events {
            ring.extend(&[event_with(room * events + number, body)]);
        }
        ring.into()
    });
    rings.collect()
}

#[test]
fn large_events_in_many_rooms_stay_one_for_each_room_until_quiet_rooms_are_shrunk() {
    let body = "x".repeat(60_000);
    let one = event_with(1, &body).1.weight();
    let all = Rings::of_share(2 << 20);
    let rooms = filled(&all, 200, 8, &body);
    let bytes = all.bytes.load(Ordering::Relaxed);
    assert!(bytes <= all.share + 200 * one, "{bytes}");
    for (room, ring) in (0..).zip(&rooms) {
        let last = (room + 1) * 8;
        let newest = ring.borrow().between(Position(last - 1), Position(last));
        assert!(newest.is_some_and(|events| events.len() == 1), "a client that waits finds the newest event");
    }

    all.shrink(&rooms, |ring, rest| ring.borrow_mut().shrink(rest));
    let left = all.bytes.load(Ordering::Relaxed);
    let freed = all.share - all.share / FREED_PART;
    assert!(left <= freed && left + one > freed, "{left} of {}", all.share);
    let (oldest, newest) = (&rooms[0], &rooms[199]);
    assert_eq!(newest.borrow().events.len(), 1, "the room that was active last keeps its event");
    assert_eq!(oldest.borrow().events.len(), 0);
    assert!(oldest.borrow().between(Position(8), Position(2_000)).is_some_and(|events| events.is_empty()));
    assert!(oldest.borrow().between(Position(7), Position(8)).is_none(), "the event is read from the database");
}

#[test]
fn quiet_rings_are_shrunk_before_those_of_rooms_in_use_and_no_more_than_needed() {
    let weight = event(1).1.weight();
    // Room for two whole rings and a few events.
    let all = Rings::of_share(weight * (2 * RING_EVENTS + FEW_EVENTS) as u64);
    let rooms = filled(&all, 2, 100, "hello");
    let counts = || rooms.iter().map(|ring| ring.borrow().events.len()).collect::<Vec<_>>();
    let shrink = || all.shrink(&rooms, |ring, rest| ring.borrow_mut().shrink(rest));
    rooms[1].borrow_mut().extend(&[event(201)]);
    assert_eq!(counts(), [RING_EVENTS, RING_EVENTS]);
    shrink();
    assert_eq!(counts(), [FEW_EVENTS, RING_EVENTS], "the first one was quiet for longer");
    shrink();
    assert_eq!(counts(), [FEW_EVENTS, RING_EVENTS], "there is room enough");
}
