//! Rejected and soft-failed events, and what follows on them.

use super::*;

/// A kick by Alice, and the decision before it, on which another server may still build.
fn kicked(server: &mut Server, user: &UserId) -> (Decision, Decision) {
    let before = server.push_new(alice(), message("before the kick"));
    let kick = server.push_new(alice(), member(user, "leave"));
    (before, kick)
}

/// Expects that an event was refused, and left the room as it was before it.
#[track_caller]
fn assert_refused(server: &Server, decision: &Decision, flags: Flags, (tips, state): &(Vec<OwnedEventId>, State)) {
    assert_eq!((decision.flags, decision.placing), (flags, Placing::Nowhere), "{:?}", decision.refused);
    assert!(decision.refused.is_some() && decision.changes.is_empty() && decision.covers.is_empty());
    assert!(decision.extremity.is_none() && decision.redaction.is_none());
    assert_eq!((&server.tips(), server.state()), (tips, state));
}

fn room_of(server: &Server) -> (Vec<OwnedEventId>, State) {
    (server.tips(), server.state().clone())
}

#[test]
fn an_event_whose_auth_events_do_not_allow_it_is_rejected() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let said = message("x");
        let cases: [fn(&Server, &mut Made<'_>); 5] = [
            // The membership of the sender is left out, so the state of the auth events has it not.
            |server, made| {
                let bobs = server.current("m.room.member", bob().as_str()).unwrap();
                made.auth.retain(|id| *id != bobs);
            },
            |server, made| made.auth.push(server.current("m.room.member", carol().as_str()).unwrap()),
            |server, made| made.auth.push(server.current("m.room.join_rules", "").unwrap()),
            |_, made| made.auth.push(made.auth[0].clone()),
            |server, made| {
                // An event that is no state event.
                made.auth.push(server.tips()[0].clone());
            },
        ];
        server.push_new(carol(), message("no state"));
        for case in cases {
            let before = room_of(&server);
            let mut made = server.made_on(&before.0, bob(), &said);
            case(&server, &mut made);
            let rejected = server.push(&made.build(&server.rules, &server.room_id));
            assert_refused(&server, &rejected, Flags::REJECTED, &before);
            assert_eq!(server.whole(rejected.before), before.1, "{version}: it has the state before it");
        }
    }
}

#[test]
fn an_event_that_rests_on_a_rejected_one_is_rejected() {
    // Trap 10.
    for version in versions() {
        let mut server = Server::with_room(&version);
        let before = room_of(&server);
        // Carol may not set power levels.
        let levels = ("m.room.power_levels", Some(String::new()), json!({ "users": { carol(): 100 } }));
        let levels = server.push_new(carol(), levels);
        assert_refused(&server, &levels, Flags::REJECTED, &before);
        let kick = member(bob(), "leave");
        let mut made = server.made_on(&before.0, carol(), &kick);
        let current = server.current("m.room.power_levels", "").unwrap();
        made.auth.retain(|id| *id != current);
        made.auth.push(id(&levels));
        let kick = server.push(&made.build(&server.rules, &server.room_id));
        assert_refused(&server, &kick, Flags::REJECTED, &before);
        assert!(kick.refused.unwrap().to_string().starts_with("rejected auth event"), "{version}");
    }
}

#[test]
fn an_event_that_the_state_before_it_does_not_allow_is_rejected() {
    // Trap 9: its auth events do allow it.
    for version in versions() {
        let mut server = Server::with_room(&version);
        let content = topic("mine");
        let old = server.made_on(&server.tips(), bob(), &content);
        let (_, kick) = kicked(&mut server, bob());
        let before = room_of(&server);
        let rejected = Made { prev: vec![id(&kick)], ..old };
        let rejected = server.push(&rejected.build(&server.rules, &server.room_id));
        assert_refused(&server, &rejected, Flags::REJECTED, &before);
    }
}

#[test]
fn the_state_after_a_rejected_event_is_that_before_it() {
    // Trap 8. An event of the same key and by the same user follows on it.
    for version in versions() {
        let mut server = Server::with_room(&version);
        let state = server.state().clone();
        let rejected = server.push_new(carol(), ("m.room.name", Some(String::new()), json!({ "name": "mine" })));
        assert!(rejected.flags.contains(Flags::REJECTED));
        let next = server.push_on(&[&rejected], carol(), message("x"));
        assert_eq!((server.whole(next.before), server.state()), (state.clone(), &state), "{version}");
        // It covers the event behind the rejected one, so no dead extremity stays.
        assert_eq!((server.tips(), next.flags), (vec![id(&next)], Flags::TIP));
    }
}

#[test]
fn an_event_that_the_current_state_does_not_allow_is_soft_failed() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let (base, _) = kicked(&mut server, carol());
        let before = room_of(&server);
        let late = server.push_on(&[&base], carol(), message("late"));
        assert_refused(&server, &late, Flags::SOFT_FAILED, &before);
        let late = server.push_on(&[&base], carol(), topic("late"));
        assert_refused(&server, &late, Flags::SOFT_FAILED, &before);

        // Others may build on it, and then it counts on their branch. The room resolves it away.
        let on_it = server.push_on(&[&late], bob(), message("I saw it"));
        assert!(on_it.flags.is_accepted(), "{version}: {:?}", on_it.refused);
        assert_eq!(server.tips(), [before.0[0].clone(), id(&on_it)], "{version}");
        let key = ("m.room.topic".to_owned(), String::new());
        assert_eq!(server.named(&server.whole(on_it.before)).get(&key), Some(&id(&late)), "{version}");
        assert_eq!(server.state(), &before.1, "{version}");
    }
}

#[test]
fn an_event_that_names_all_forward_extremities_is_not_checked_again() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        kicked(&mut server, carol());
        // Nothing but a rejection can come of it: the state before it is the current one.
        let late = server.push_new(carol(), message("late"));
        assert_eq!(late.flags, Flags::REJECTED, "{version}");
        // Somebody who may join again, from the very state.
        assert!(server.push_new(carol(), member(carol(), "join")).flags.is_accepted());
    }
}

#[test]
fn a_dead_extremity_behind_a_soft_failed_event_goes() {
    // Trap 1.
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        let main = server.push_on(&[&base], alice(), message("main"));
        let dead = server.push_on(&[&base], carol(), message("dead"));
        let kick = server.push_on(&[&main], alice(), member(carol(), "leave"));
        assert_eq!(server.tips(), [id(&dead), id(&kick)], "{version}");
        let failed = server.push_on(&[&dead], carol(), message("soft-failed"));
        assert_eq!(failed.flags, Flags::SOFT_FAILED, "{version}");
        assert_eq!(server.tips(), [id(&dead), id(&kick)], "{version}");
        // An accepted event names the soft-failed one and not the extremity behind it.
        let merged = server.push_on(&[&failed, &kick], alice(), message("merge"));
        assert_eq!((server.tips(), merged.flags), (vec![id(&merged)], Flags::TIP), "{version}");
        assert!(merged.covers.contains(&dead.nid));
    }
}

#[test]
fn a_room_has_one_create_event() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let rules = server.rules.clone();
        if rules.authorization.room_create_event_id_as_room_id {
            continue;
        }
        for state_key in [Some(""), Some("x"), None] {
            let before = room_of(&server);
            let (sender, (event_type, _, mut content)) = beginning(&version).swap_remove(0);
            content["second"] = true.into();
            let (prev, auth) = (Vec::new(), Vec::new());
            let made = Made { sender, event_type, state_key, content, redacts: None, prev, auth, depth: 1, ts: 1 };
            let second = made.build(&rules, &server.room_id);
            let outlier = server.judge(Incoming::new(verified(&rules, &second), Mode::Outlier));
            let Verdict::Judged(outlier) = outlier else { panic!("{outlier:?}") };
            assert!(outlier.refused.is_some(), "nothing rests on it");
            let second = server.push(&second);
            assert_refused(&server, &second, Flags::REJECTED, &before);
        }
        // An event without previous events that creates nothing.
        let before = room_of(&server);
        let content = message("out of nothing");
        let made = Made { prev: Vec::new(), ..server.made_on(&before.0, bob(), &content) };
        let rejected = server.push(&made.build(&rules, &server.room_id));
        assert_refused(&server, &rejected, Flags::REJECTED, &before);
    }
}

#[test]
fn an_event_with_a_field_that_is_too_long_is_rejected_up_to_version_10() {
    for version in [RoomVersionId::V6, RoomVersionId::V10] {
        let mut server = Server::with_room(&version);
        let before = room_of(&server);
        let event = server.make(bob(), ("m.room.topic", Some(String::new()), json!({})));
        // The builder has a smaller limit, so the key is put in afterwards.
        let mut json: ruma::CanonicalJsonObject = serde_json::from_str(&event.json).unwrap();
        json.insert("state_key".to_owned(), "ä".repeat(200).into());
        json.remove("hashes");
        json.remove("signatures");
        let signer = crate::ServerSigner::generate(bob().server_name().to_owned());
        crate::build::tests::hash_and_sign_with_ruma(&server.rules, &signer, &mut json);
        let json = serde_json::to_string(&json).unwrap();
        let long = Pdu { json: json.into(), ..event };
        let long = server.push(&long);
        assert_refused(&server, &long, Flags::REJECTED, &before);
    }
}

#[test]
fn the_depth_and_the_time_of_an_event_decide_nothing() {
    // Trap 20.
    for version in versions() {
        let server = Server::with_room(&version);
        let mut results = Vec::new();
        for (depth, ts) in [(9, 1), (0, i64::from(i32::MIN)), ((1 << 53) - 1, (1 << 53) - 1)] {
            let mut server = server.copy(&version);
            let (base, _) = kicked(&mut server, carol());
            let mut push = |sender, content: &Content| {
                let made = Made { depth, ts, ..server.made_on(&[id(&base)], sender, content) };
                let event = made.build(&server.rules, &server.room_id);
                server.push(&event).flags
            };
            let flags = [push(carol(), &message("late")), push(bob(), &message("fork")), push(bob(), &topic("fork"))];
            results.push((flags, server.extremities.len()));
        }
        assert_eq!(results[0].0, [Flags::SOFT_FAILED, Flags::NONE, Flags::NONE], "{version}");
        assert!(results.iter().all(|result| *result == results[0]), "{version}: {results:?}");
    }
}
