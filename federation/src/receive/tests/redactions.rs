//! Redactions: those that apply, those that wait, and those that are refused.

use super::*;

/// A redaction by `sender` of an event, on these events.
fn redaction(server: &Server, prev: &[OwnedEventId], sender: &UserId, target: &OwnedEventId) -> Pdu {
    let content: Content = ("m.room.redaction", None, json!({}));
    let made = Made { redacts: Some(target.clone()), ..server.made_on(prev, sender, &content) };
    made.build(&server.rules, &server.room_id)
}

#[test]
fn a_redaction_applies_by_power_or_by_the_server_of_its_target() {
    for version in versions() {
        let check = |sender: &'static UserId, of: &'static UserId, applies: bool| {
            let mut server = Server::with_room(&version);
            let target = server.push_new(of, message("spam"));
            let redaction = server.push(&redaction(&server, &server.tips(), sender, &id(&target)));
            let expected = if applies { Redaction::Applies(target.nid) } else { Redaction::Refused(target.nid) };
            assert!(redaction.flags.is_accepted(), "{version}: each redaction is an event of the room");
            assert_eq!(redaction.redaction, Some(expected), "{version}: {sender} of {of}");
        };
        check(alice(), carol(), true);
        check(bob(), carol(), true);
        check(carol(), carol(), true);
        check(carol(), bob(), false);
    }
}

#[test]
fn the_state_before_a_redaction_decides_and_not_the_current_one() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let target = server.push_new(carol(), message("spam"));
        let users = if version == RoomVersionId::V12 { json!({}) } else { json!({ alice(): 100 }) };
        server.push_new(alice(), ("m.room.power_levels", Some(String::new()), json!({ "users": users })));
        // Bob had the level when he sent it.
        let redaction = server.push(&redaction(&server, &[id(&target)], bob(), &id(&target)));
        assert_eq!(redaction.redaction, Some(Redaction::Applies(target.nid)), "{version}");
    }
}

#[test]
fn a_redaction_waits_for_a_target_that_is_not_known() {
    for version in versions() {
        let check = |senders: &[&'static UserId], applies: Option<usize>| {
            let mut server = Server::with_room(&version);
            let start = server.tips();
            let target = server.make_on(&start, carol(), message("spam"));
            let redactions: Vec<_> = senders
                .iter()
                .map(|sender| server.push(&redaction(&server, &start, sender, &target.event_id)))
                .collect();
            for (redaction, sender) in redactions.iter().zip(senders) {
                let by_power = **sender != *carol();
                let pending = Redaction::Pending { target: target.event_id.clone(), by_power };
                assert_eq!(redaction.redaction, Some(pending), "{version}: {sender}");
            }
            let stored = server.push(&target);
            assert_eq!(stored.redacted_by, applies.map(|index| redactions[index].nid), "{version}: {senders:?}");
        };
        check(&[], None);
        check(&[bob()], Some(0));
        check(&[carol()], Some(0));
        check(&[alice(), bob()], Some(0));
    }
}

#[test]
fn a_redaction_that_waited_without_the_right_does_nothing() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let start = server.tips();
        let target = server.make_on(&start, bob(), message("not spam"));
        server.push(&redaction(&server, &start, carol(), &target.event_id));
        let outlier = server.receive(&target, Mode::Outlier);
        assert_eq!(outlier.redacted_by, None, "{version}");
        // Once the target is stored, redactions find it, also as an outlier.
        let found = server.push(&redaction(&server, &start, alice(), &target.event_id));
        assert_eq!(found.redaction, Some(Redaction::Applies(outlier.nid)), "{version}");
        assert_eq!(server.push(&target).redacted_by, None, "{version}");
    }
}

#[test]
fn a_redaction_that_is_not_accepted_has_no_effect() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let target = server.push_new(bob(), message("x"));
        server.push_new(alice(), member(bob(), "leave"));
        let failed = server.push(&redaction(&server, &[id(&target)], bob(), &id(&target)));
        assert_eq!((failed.flags, failed.redaction), (Flags::SOFT_FAILED, None), "{version}");
        let rejected = redaction(&server, &server.tips(), bob(), &id(&target));
        let rejected = server.push(&rejected);
        assert_eq!((rejected.flags, rejected.redaction), (Flags::REJECTED, None), "{version}");
        // An event of another type names no target, whatever it says.
        let other: Content = ("m.room.message", None, json!({ "redacts": id(&target) }));
        assert_eq!(server.push_new(carol(), other).redaction, None);
    }
}
