//! The tables of history visibility, for events wherever they stand in the room's graph.

use ruma::{RoomVersionId, event_id};
use sabha_federation::{
    Pdu, room_version,
    standing::{Standing, StateAt},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    room::event::membership_name,
    store::{EventNid, RoomNid},
};
use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
use Membership::{Ban, Invite, Join, Leave};

const MEMBER: KeyNid = KeyNid(1);
const VISIBILITY: KeyNid = KeyNid(2);

/// An event, by the key of the state that it sets.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Message,
    Member(Membership),
    Visibility(HistoryVisibility),
}

fn sight(visibilities: &[(i64, HistoryVisibility)], memberships: &[(i64, Membership)]) -> Sight {
    Sight {
        member_key: Some(MEMBER),
        visibility_key: Some(VISIBILITY),
        memberships: memberships.iter().map(|(pos, membership)| (Position(*pos), *membership)).collect(),
        visibilities: visibilities.iter().map(|(pos, visibility)| (Position(*pos), *visibility)).collect(),
    }
}

fn visibility_name(visibility: HistoryVisibility) -> &'static str {
    match visibility {
        WorldReadable => "world_readable",
        Shared => "shared",
        Invited => "invited",
        Joined => "joined",
    }
}

fn event(kind: Kind, place: Option<TimelinePlace>, flags: Flags, state_pos: i64) -> StoredEvent {
    let (event_type, key, state_key, content): (_, _, Option<&str>, Value) = match kind {
        Kind::Message => ("m.room.message", None, None, json!({ "body": "hello" })),
        Kind::Member(membership) => {
            let content = json!({ "membership": membership_name(membership) });
            ("m.room.member", Some(MEMBER), Some("@bob:x"), content)
        }
        Kind::Visibility(visibility) => {
            let content = json!({ "history_visibility": visibility_name(visibility) });
            ("m.room.history_visibility", Some(VISIBILITY), Some(""), content)
        }
    };
    let mut json = json!({
        "type": event_type, "room_id": "!r", "sender": "@bob:x", "content": content, "depth": 1,
        "origin_server_ts": 1, "prev_events": [], "auth_events": [], "hashes": { "sha256": "" }, "signatures": {},
    });
    if let Some(state_key) = state_key {
        json["state_key"] = state_key.into();
    }
    let rules = room_version::rules(&RoomVersionId::V12).unwrap();
    let pdu = Pdu::from_stored(&rules, event_id!("$e").to_owned(), json.to_string()).unwrap();
    let standing = Standing { flags, place, before: StateAt::in_log(Position(state_pos)) };
    StoredEvent::new(EventNid(1), RoomNid(1), standing, 0, key, Arc::new(pdu), None, None)
}

/// The event of the line at `pos`, as the writer of the room stores it.
fn on_line(sight: &Sight, pos: i64, flags: Flags) -> StoredEvent {
    let at_pos = Position(pos);
    let member =
        sight.memberships.iter().find(|(at, _)| *at == at_pos).map(|(_, membership)| Kind::Member(*membership));
    let visibility = sight.visibilities.iter().find(|(at, _)| *at == at_pos).map(|(_, now)| Kind::Visibility(*now));
    let changes = sight.memberships.iter().map(|(at, _)| at.0).chain(sight.visibilities.iter().map(|(at, _)| at.0));
    let state_pos = changes.filter(|at| *at < pos).max().unwrap_or_default();
    let kind = member.or(visibility).unwrap_or(Kind::Message);
    event(kind, Some(TimelinePlace::on_line(at_pos)), flags, state_pos)
}

/// Checks an event of the line, which is the only forward extremity after its commit, or has only its own change.
fn check(sight: &Sight, pos: i64, expected: bool) {
    for flags in [Flags::TIP, Flags::NONE] {
        assert_eq!(sight.sees(&on_line(sight, pos, flags)), expected, "{sight:?}, at {pos}, {flags:?}");
    }
    assert_eq!(sight.sees_line_at(Position(pos)), expected, "{sight:?}, at {pos}");
}

#[test]
fn what_a_user_sees_follows_the_table_of_the_spec() {
    let check = |visibility: HistoryVisibility, memberships: &[(i64, Membership)], pos: i64, expected: bool| {
        check(&sight(&[(1, visibility)], memberships), pos, expected);
    };
    let came_late = [(10, Invite), (20, Join)];
    let left = [(10, Join), (20, Leave)];
    let came_back = [(10, Join), (20, Leave), (30, Join)];
    check(WorldReadable, &[], 5, true);
    check(WorldReadable, &left, 25, true);
    check(Shared, &[], 5, false);
    check(Shared, &came_late, 5, true);
    check(Shared, &left, 15, true);
    check(Shared, &left, 25, false);
    check(Shared, &came_back, 25, true);
    check(Shared, &[(10, Invite)], 15, false);
    check(Shared, &[(10, Ban)], 15, false);
    check(Invited, &came_late, 5, false);
    check(Invited, &came_late, 15, true);
    check(Invited, &came_late, 10, true);
    check(Invited, &left, 25, false);
    check(Joined, &came_late, 15, false);
    check(Joined, &came_late, 20, true);
    check(Joined, &came_late, 25, true);
    check(Joined, &left, 20, true);
    check(Joined, &left, 21, false);
}

#[test]
fn a_change_of_visibility_is_seen_by_those_who_could_see_before_it() {
    let sight = sight(&[(1, WorldReadable), (5, Joined)], &[]);
    check(&sight, 5, true);
    check(&sight, 6, false);
}

#[test]
fn a_late_event_is_judged_by_the_state_that_it_stands_in_and_not_by_its_position() {
    let check = |sight: &Sight, kind: Kind, (pos, state_pos): (i64, i64), expected: bool| {
        let event = event(kind, Some(TimelinePlace::on_line(Position(pos))), Flags::NONE, state_pos);
        assert_eq!(sight.sees(&event), expected, "{sight:?}, {kind:?} at {pos}, on the state of {state_pos}");
    };
    let left = &sight(&[(1, Joined)], &[(10, Join), (20, Leave)]);
    check(left, Kind::Message, (30, 15), true);
    check(left, Kind::Message, (30, 20), false);
    check(left, Kind::Message, (30, 5), false);
    // Their own change counts on the state on which it was made.
    check(left, Kind::Member(Leave), (30, 15), true);
    check(left, Kind::Member(Join), (30, 5), true);
    check(left, Kind::Member(Ban), (30, 20), false);
    let closed = &sight(&[(1, WorldReadable), (10, Joined)], &[]);
    check(closed, Kind::Message, (30, 5), true);
    check(closed, Kind::Message, (30, 10), false);
    check(closed, Kind::Visibility(WorldReadable), (30, 10), true);
    check(closed, Kind::Visibility(Shared), (30, 10), false);
    // A merge of branches can change the state in another way than by the event's own key.
    let merged = event(Kind::Message, Some(TimelinePlace::on_line(Position(10))), Flags::TIP, 5);
    assert!(sight(&[(1, Joined)], &[(10, Join)]).sees(&merged));
}

#[test]
fn history_before_a_join_is_earlier_than_the_join_at_its_position() {
    let history = |visibility| {
        let place = TimelinePlace { pos: Position(20), sub: -3 };
        sight(&[(1, visibility)], &[(20, Join)]).sees(&event(Kind::Message, Some(place), Flags::NONE, 1))
    };
    assert_eq!([WorldReadable, Shared, Invited, Joined].map(history), [true, true, false, false]);
}

#[test]
fn an_event_without_a_place_is_not_seen() {
    let sight = sight(&[(1, WorldReadable)], &[(10, Join)]);
    for flags in [Flags::OUTLIER, Flags::REJECTED, Flags::SOFT_FAILED] {
        assert!(!sight.sees(&event(Kind::Message, None, flags, 10)), "{flags:?}");
        assert_eq!(sight.membership_after(&event(Kind::Message, None, flags, 10)), None);
    }
}

#[test]
fn the_reader_has_the_membership_of_the_state_after_the_event() {
    let sight = sight(&[], &[(10, Join), (20, Leave)]);
    let on_branch = |kind, state_pos| {
        sight.membership_after(&event(kind, Some(TimelinePlace::on_line(Position(30))), Flags::NONE, state_pos))
    };
    assert_eq!(sight.membership_after(&on_line(&sight, 15, Flags::TIP)), Some(Join));
    assert_eq!(sight.membership_after(&on_line(&sight, 20, Flags::TIP)), Some(Leave));
    assert_eq!(on_branch(Kind::Message, 15), Some(Join));
    assert_eq!(on_branch(Kind::Member(Ban), 15), Some(Ban));
    assert_eq!(on_branch(Kind::Message, 5), None);
}

#[test]
fn something_before_a_position_is_seen_or_nothing() {
    let check = |visibilities: &[(i64, HistoryVisibility)], memberships: &[(i64, Membership)], upto, expected| {
        let sight = sight(visibilities, memberships);
        assert_eq!(sight.sees_any_up_to(Position(upto)), expected, "{visibilities:?}, {memberships:?}, to {upto}");
    };
    check(&[(1, Joined)], &[(20, Join)], 19, true); // Before its first visibility, the room is shared.
    check(&[(1, Joined)], &[(20, Join)], 0, false);
    check(&[(1, WorldReadable), (5, Joined)], &[(20, Join)], 19, true);
    check(&[(0, Joined)], &[(20, Join)], 19, false);
    check(&[(0, Joined)], &[(20, Join)], 20, true);
    check(&[(0, Joined)], &[(5, Join), (8, Leave), (20, Join)], 19, true);
    check(&[(0, Joined)], &[(5, Join), (8, Leave), (20, Join)], 4, false);
    check(&[(0, Invited)], &[(10, Invite), (20, Join)], 19, true);
    check(&[(0, Invited)], &[(10, Invite), (20, Join)], 9, false);
    check(&[(0, Joined), (10, Shared), (12, Joined)], &[(20, Join)], 15, true);
    check(&[(0, Joined), (10, Shared), (12, Joined)], &[(20, Join)], 9, false);
}

#[test]
fn who_left_saw_the_room_until_they_left_whatever_came_later() {
    let check = |memberships: &[(i64, Membership)], expected: Option<i64>| {
        let sight = sight(&[], memberships);
        assert_eq!(sight.joined_until(Position(50)), expected.map(Position));
    };
    check(&[], None);
    check(&[(10, Invite), (20, Leave)], None);
    check(&[(10, Join)], Some(50));
    check(&[(10, Join), (20, Leave)], Some(20));
    check(&[(10, Join), (20, Leave), (30, Invite), (40, Leave)], Some(20));
    check(&[(10, Join), (20, Leave), (30, Ban)], Some(20));
    check(&[(10, Join), (20, Leave), (30, Join), (40, Ban)], Some(40));
    check(&[(10, Join), (60, Leave)], Some(50));
}

#[test]
fn a_stay_begins_with_the_last_join_and_not_with_a_new_name() {
    let check = |memberships: &[(i64, Membership)], expected: Option<i64>| {
        let sight = sight(&[], memberships);
        assert_eq!(sight.joined_since(Position(50)), expected.map(Position));
    };
    check(&[], None);
    check(&[(10, Invite)], None);
    check(&[(10, Invite), (20, Join)], Some(20));
    check(&[(20, Join), (30, Join), (40, Join)], Some(20));
    check(&[(20, Join), (30, Leave), (35, Join), (40, Join)], Some(35));
    check(&[(20, Join), (30, Leave)], None);
    check(&[(20, Join), (60, Leave)], Some(20));
    check(&[(60, Join)], None);
}
