//! Events for which something is missing, those that are known, and those that are fetched.

use ruma::owned_event_id;

use super::*;

fn told(event: &Pdu, server: &Server, mode: Mode, states: &[(&OwnedEventId, StateAt)]) -> Incoming {
    let told = states.iter().map(|(id, state)| ((*id).clone(), *state)).collect();
    Incoming { told, ..Incoming::new(verified(&server.rules, event), mode) }
}

#[track_caller]
fn assert_waits(server: &Server, incoming: Incoming, expected: &Missing) {
    let verdict = server.judge(incoming);
    let Verdict::Wait { missing, event } = verdict else { panic!("{verdict:?}") };
    assert_eq!(missing, *expected);
    // The event is given back, and waits again.
    assert!(matches!(server.judge(*event), Verdict::Wait { .. }));
}

#[test]
fn an_event_waits_for_its_auth_events_and_then_for_its_previous_ones() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let mut other = server.copy(&version);
        let joined = other.push_new(user_id!("@dora:d.test"), member(user_id!("@dora:d.test"), "join"));
        let said = other.make_on(&[id(&joined)], user_id!("@dora:d.test"), message("hello"));
        let pushed = || Incoming::new(verified(&server.rules, &said), Mode::Pushed);
        assert_waits(&server, pushed(), &Missing::AuthEvents(vec![id(&joined)]));
        // With the join as an outlier, the previous event is missing still.
        let outlier = server.receive(joined.event.pdu(), Mode::Outlier);
        let incoming = Incoming::new(verified(&server.rules, &said), Mode::Pushed);
        assert_waits(&server, incoming, &Missing::Prevs(vec![id(&joined)]));
        let placed = server.push(joined.event.pdu());
        assert_eq!((placed.nid, placed.was_outlier, outlier.was_outlier), (outlier.nid, true, false), "{version}");
        assert_eq!(server.push(&said).flags, Flags::TIP, "{version}");
    }
}

#[test]
fn an_event_of_another_room_is_not_known_as_a_previous_or_auth_event() {
    // Trap 7.
    for version in versions() {
        let server = Server::with_room(&version);
        let (foreign, tip) = (owned_event_id!("$elsewhere"), server.tips()[0].clone());
        let content = message("x");
        let made = server.made_on(std::slice::from_ref(&tip), bob(), &content);
        let prev = vec![foreign.clone(), tip, foreign.clone()];
        let event = Made { prev, ..made.clone() }.build(&server.rules, &server.room_id);
        let incoming = Incoming::new(verified(&server.rules, &event), Mode::Pushed);
        assert_waits(&server, incoming, &Missing::Prevs(vec![foreign.clone()]));
        let auth = vec![made.auth[0].clone(), foreign.clone()];
        let event = Made { auth, ..made }.build(&server.rules, &server.room_id);
        let incoming = Incoming::new(verified(&server.rules, &event), Mode::Pushed);
        assert_waits(&server, incoming, &Missing::AuthEvents(vec![foreign]));
    }
    // The event itself is of another room.
    let (server, mut other) = (Server::with_room(&RoomVersionId::V11), Server::with_room(&RoomVersionId::V11));
    other.room_id = owned_room_id!("!other:us.test");
    let event = other.make(bob(), message("x"));
    let dropped = server.judge(Incoming::new(verified(&server.rules, &event), Mode::Pushed));
    assert!(matches!(dropped, Verdict::Dropped(DropReason::OtherRoom)), "{dropped:?}");
}

#[test]
fn an_event_that_is_stored_is_known() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let said = server.make(bob(), message("hello"));
        let incoming = || Incoming::new(verified(&server.rules, &said), Mode::Pushed);
        // Two servers send it at the same time.
        let judged = [server.judge(incoming()), server.judge(incoming())];
        let [Verdict::Judged(first), Verdict::Judged(second)] = judged else { panic!("{judged:?}") };
        let Settled::Store(stored) = server.settle(first) else { panic!("it is stored") };
        server.commit(&stored);
        let again = server.settle(second);
        assert!(matches!(again, Settled::Known { nid, flags } if (nid, flags) == (stored.nid, stored.flags)));
        for mode in [Mode::Pushed, Mode::Fetched, Mode::Outlier] {
            let known = server.judge(Incoming::new(verified(&server.rules, &said), mode));
            assert!(matches!(known, Verdict::Known { nid, .. } if nid == stored.nid), "{version}: {known:?}");
        }
        // A rejected event is known too.
        let rejected = server.push_new(carol(), ("m.room.name", Some(String::new()), json!({})));
        let again = Incoming::new(verified(&server.rules, rejected.event.pdu()), Mode::Pushed);
        let again = server.judge(again);
        assert!(matches!(again, Verdict::Known { flags: Flags::REJECTED, .. }), "{again:?}");
    }
}

#[test]
fn an_outlier_changes_nothing_and_is_no_known_event() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let (state, tips) = (server.state().clone(), server.tips());
        let mut other = server.copy(&version);
        let skipped = other.push_new(bob(), message("not sent to us"));
        let changed = other.push_on(&[&skipped], bob(), topic("x"));
        let outlier = server.receive(changed.event.pdu(), Mode::Outlier);
        assert_eq!((outlier.flags, outlier.placing), (Flags::OUTLIER, Placing::Nowhere), "{version}");
        assert_eq!((outlier.before, outlier.prev.len(), outlier.missing.len()), (StateAt::EMPTY, 0, 0));
        assert!(outlier.key.is_some() && !outlier.auth.is_empty() && outlier.auth_depth > 0);
        assert_eq!((server.state(), server.tips()), (&state, tips), "{version}");
        // Its child waits for it, as for an event that is not stored.
        let child = other.make_on(&[id(&changed)], bob(), message("child"));
        let incoming = Incoming::new(verified(&server.rules, &child), Mode::Pushed);
        assert_waits(&server, incoming, &Missing::Prevs(vec![id(&changed)]));
        // It is not stored twice.
        let again = server.judge(Incoming::new(verified(&server.rules, changed.event.pdu()), Mode::Outlier));
        assert!(matches!(again, Verdict::Known { flags: Flags::OUTLIER, .. }), "{again:?}");
    }
}

#[test]
fn an_event_that_is_rejected_in_any_case_does_not_wait_for_its_previous_events() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let content = message("x");
        let bobs = server.current("m.room.member", bob().as_str()).unwrap();
        let mut made = server.made_on(&server.tips(), bob(), &content);
        made.auth.retain(|auth| *auth != bobs);
        made.prev = vec![owned_event_id!("$missing")];
        let event = made.build(&server.rules, &server.room_id);
        let rejected = server.push(&event);
        assert_eq!(rejected.flags, Flags::OUTLIER | Flags::REJECTED, "{version}");
        assert_eq!((rejected.before, rejected.prev.len()), (StateAt::EMPTY, 0));
        let again = server.judge(Incoming::new(verified(&server.rules, &event), Mode::Pushed));
        assert!(matches!(again, Verdict::Known { .. }), "{again:?}");
    }
}

#[test]
fn a_pushed_event_gets_no_state_that_was_told() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let mut other = server.copy(&version);
        let skipped = other.push_new(bob(), message("not sent to us"));
        let said = other.make_on(&[id(&skipped)], bob(), message("x"));
        let states = [(&id(&skipped), StateAt::in_log(server.head().state_pos))];
        let pushed = told(&said, &server, Mode::Pushed, &states);
        assert_waits(&server, pushed, &Missing::Prevs(vec![id(&skipped)]));

        let fetched = server.take(told(&said, &server, Mode::Fetched, &states));
        assert_eq!((fetched.flags, fetched.placing), (Flags::CLAIMED, Placing::EndOfLine), "{version}");
        assert_eq!(fetched.missing, BTreeMap::from([(id(&skipped), true)]));
        // Our extremities stay beside it.
        assert_eq!(server.extremities.len(), 2);
        // The skipped event comes late and is covered, so it is no extremity. What it names goes.
        let late = server.push(skipped.event.pdu());
        assert!(late.flags.is_accepted() && late.extremity.is_none(), "{version}: {:?}", late.flags);
        assert_eq!(server.tips(), std::slice::from_ref(&said.event_id), "{version}");
    }
}

#[test]
fn a_rejected_event_that_comes_late_and_covered_removes_what_it_names() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let mut other = server.copy(&version);
        let rejected = other.push_new(carol(), ("m.room.name", Some(String::new()), json!({})));
        let said = other.make_on(&[id(&rejected)], bob(), message("x"));
        let states = [(&id(&rejected), StateAt::in_log(server.head().state_pos))];
        server.take(told(&said, &server, Mode::Fetched, &states));
        assert_eq!(server.extremities.len(), 2, "{version}");
        let late = server.push(rejected.event.pdu());
        assert_eq!((late.flags, late.covers.len()), (Flags::REJECTED, 1), "{version}");
        assert_eq!(server.tips(), [said.event_id], "{version}");
    }
}

#[test]
fn a_state_that_was_told_is_checked_together_with_the_current_one() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let mut other = server.copy(&version);
        let base = StateAt::in_log(server.head().state_pos);
        let start = server.tips();
        // Here Carol was kicked; there she said something on events that are missing here.
        server.push_new(alice(), member(carol(), "leave"));
        let skipped = other.push_new(bob(), message("not sent to us"));
        let said = other.make_on(&[id(&skipped)], carol(), message("x"));
        let failed = server.take(told(&said, &server, Mode::Fetched, &[(&id(&skipped), base)]));
        assert_eq!(failed.flags, Flags::CLAIMED | Flags::SOFT_FAILED, "{version}");
        // Dora joined there, and the current state alone would not let her speak.
        let dora = user_id!("@dora:d.test");
        let joined = other.push_new(dora, member(dora, "join"));
        server.receive(joined.event.pdu(), Mode::Outlier);
        let said = other.make_on(&[id(&joined)], dora, message("x"));
        let key = ready(Ids::key(&server, "m.room.member", dora.as_str())).unwrap();
        let nid = server.nid(&id(&joined));
        let state = server.tell(&start, key, Held { event_nid: nid, membership: Some(Membership::Join) });
        let fetched = server.take(told(&said, &server, Mode::Fetched, &[(&id(&joined), state)]));
        assert_eq!(fetched.flags, Flags::CLAIMED, "{version}: {:?}", fetched.refused);
        assert_eq!(server.current("m.room.member", dora.as_str()), Some(id(&joined)), "{version}");
        // The join is in the state now. It comes to its place without a change.
        let missing = server.push(skipped.event.pdu());
        assert!(missing.flags.is_accepted());
        let placed = server.push(joined.event.pdu());
        assert!(placed.was_outlier && placed.changes.is_empty(), "{version}: {:?}", placed.changes);
    }
}

#[test]
fn an_event_of_history_gets_its_place_and_no_check_against_the_current_state() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let start = server.push_new(alice(), message("start"));
        let kick = server.push_new(alice(), member(carol(), "leave"));
        let (state, tips) = (server.state().clone(), server.tips());
        let place = TimelinePlace { pos: Position(1_000), sub: -1 };
        for content in [message("old"), topic("old")] {
            let old = server.make_on(&[id(&start)], carol(), content);
            let old = server.receive(&old, Mode::History(place));
            assert_eq!((old.flags, old.placing), (Flags::NONE, Placing::Gap(place)), "{version}");
            assert!(old.extremity.is_none() && old.changes.is_empty());
            assert_eq!((server.state(), &server.tips()), (&state, &tips), "{version}");
        }
        // One that breaks the rules has no place.
        let rejected = server.make_on(&[id(&kick)], carol(), message("after the kick"));
        let rejected = server.receive(&rejected, Mode::History(place));
        assert_eq!((rejected.flags, rejected.placing), (Flags::REJECTED, Placing::Nowhere), "{version}");
    }
}

#[test]
fn an_event_of_history_covers_what_it_names() {
    // Trap 2: an extremity that an outage left.
    for version in versions() {
        let mut server = Server::with_room(&version);
        let left = server.push_new(alice(), topic("left"));
        let mut other = server.copy(&version);
        let lost = other.push_on(&[&left], bob(), topic("lost"));
        let later = other.make_on(&[id(&lost)], bob(), message("later"));
        let current = StateAt::in_log(server.head().state_pos);
        server.take(told(&later, &server, Mode::Fetched, &[(&id(&lost), current)]));
        assert_eq!(server.extremities.len(), 2, "{version}");
        let place = TimelinePlace { pos: Position(1_000), sub: -1 };
        let lost = server.receive(lost.event.pdu(), Mode::History(place));
        assert_eq!((lost.flags, lost.covers.clone()), (Flags::NONE, vec![left.nid]), "{version}");
        assert_eq!(server.tips(), std::slice::from_ref(&later.event_id), "{version}");
    }
}
