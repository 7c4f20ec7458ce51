//! Sides, edges and alarms in decisions.

use super::*;

#[test]
fn all_children_of_an_event_share_its_side() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        server.push_on(&[&base], bob(), ("m.room.name", Some(String::new()), json!({ "name": "main" })));
        let branch = server.push_on(&[&base], carol(), topic("branch"));
        assert_eq!(branch.sides.len(), 1, "{version}: the state after it, which is a forward extremity");
        assert_eq!(branch.extremity.as_ref().unwrap().after, Some(branch.sides[0].at()));
        let children = [message("one"), message("two")].map(|content| server.push_on(&[&branch], carol(), content));
        for child in &children {
            assert_eq!((child.before, child.sides.len()), (branch.sides[0].at(), 0), "{version}");
        }
    }
}

#[test]
fn a_partial_room_is_not_asked_whether_it_allows_an_event_now() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        server.push_new(alice(), member(carol(), "leave"));
        server.partial = true;
        assert_eq!(server.push_on(&[&base], carol(), message("x")).flags, Flags::NONE, "{version}");
        server.partial = false;
        assert_eq!(server.push_on(&[&base], carol(), message("y")).flags, Flags::SOFT_FAILED, "{version}");
    }
}

#[test]
fn a_resolution_that_takes_all_administrators_is_told() {
    let version = RoomVersionId::V11;
    let mut server = Server::with_room(&version);
    let base = server.push_new(alice(), message("base"));
    // Alice leaves on one branch and gives up her level on the other.
    let bob_left = server.push_on(&[&base], bob(), member(bob(), "leave"));
    assert_eq!(bob_left.alarm, None);
    let users = json!({ alice(): 0, bob(): 100 });
    let levels = ("m.room.power_levels", Some(String::new()), json!({ "users": users }));
    let levels = server.push_on(&[&base], alice(), levels);
    let alarm = levels.alarm.expect("nobody is left who may change the levels");
    assert!(alarm.no_admin_left);
}

#[test]
fn a_room_never_loses_its_last_extremity() {
    // An event of history claims to follow on the only extremity, without one that covers it in its place.
    let version = RoomVersionId::V11;
    let mut server = Server::with_room(&version);
    let tip = server.push_new(alice(), message("tip"));
    let old = server.make_on(&[id(&tip)], bob(), message("not so old"));
    let mode = Mode::History(TimelinePlace { pos: Position(1_000), sub: -1 });
    let incoming = Incoming::new(verified(&server.rules, &old), mode);
    let failed = ready(judge(&server, &server.facts(), server.head(), incoming, &server));
    assert!(matches!(failed, Err(ReceiveError::NoneLeft(_))), "{failed:?}");
    assert_eq!(server.tips(), [id(&tip)]);
}
