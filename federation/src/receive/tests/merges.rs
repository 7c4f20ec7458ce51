//! Forks and merges, what moves meanwhile, and events of local users.

use super::*;

#[test]
fn a_fork_has_the_resolved_state_and_its_merge_that_of_one_line() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        let bobs = server.push_on(&[&base], bob(), topic("bob"));
        let carols = server.push_on(&[&base], carol(), topic("carol"));
        let name = ("m.room.name", Some(String::new()), json!({ "name": "x" }));
        let named = server.push_on(&[&base], alice(), name);
        assert!([&carols, &named].iter().all(|event| event.flags == Flags::NONE && event.extremity.is_some()));
        assert_eq!(server.tips(), [id(&bobs), id(&carols), id(&named)], "{version}");
        assert_eq!(server.current("m.room.name", ""), Some(id(&named)), "{version}");
        let resolved = server.state().clone();

        let merge = server.push_new(bob(), message("merge"));
        assert_eq!((merge.flags, server.tips()), (Flags::TIP, vec![id(&merge)]), "{version}");
        assert_eq!((server.state(), merge.changes.len()), (&resolved, 0), "{version}");
        // A merge of two of three is a state of its own.
        let part = server.push_on(&[&bobs, &named], bob(), message("part"));
        assert_eq!(server.whole(part.before).len(), resolved.len(), "{version}");
        assert_eq!((part.before.side.is_some(), server.extremities.len()), (true, 2), "{version}");
    }
}

#[test]
fn an_event_on_a_branch_changes_the_state_only_as_far_as_resolution_says() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        server.push_on(&[&base], alice(), member(carol(), "ban"));
        let banned = server.state().clone();
        // Carol did not know of the ban. She is soft-failed, and others build on what she did.
        let renamed = server.push_on(&[&base], carol(), ("m.room.topic", Some(String::new()), json!({ "topic": "x" })));
        let on_it = server.push_on(&[&renamed], bob(), message("y"));
        assert!(on_it.flags.is_accepted());
        let key = |server: &Server| server.current("m.room.member", carol().as_str());
        let ban = server.named(&banned)[&("m.room.member".to_owned(), carol().to_string())].clone();
        assert_eq!(key(&server), Some(ban), "{version}: the ban stays");
        // She says more on her branch.
        let more = server.push_on(&[&on_it], carol(), message("z"));
        assert_eq!(more.flags, Flags::SOFT_FAILED, "{version}");
    }
}

#[test]
fn messages_on_branches_resolve_nothing_anew() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        let mut bobs = server.push_on(&[&base], bob(), topic("bob"));
        let mut carols = server.push_on(&[&base], carol(), topic("carol"));
        let runs = server.runs.load(std::sync::atomic::Ordering::Relaxed);
        for number in 0..10 {
            bobs = server.push_on(&[&bobs], bob(), message(&format!("bob {number}")));
            carols = server.push_on(&[&carols], carol(), message(&format!("carol {number}")));
            assert!(carols.changes.is_empty() && carols.sides.is_empty(), "{version}: {:?}", carols.sides);
        }
        assert_eq!(server.runs.into_inner(), runs, "{version}");
    }
}

/// The number of resolutions until now.
fn runs(server: &Server) -> usize {
    server.runs.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn states_that_moved_are_resolved_outside_the_turn_and_the_third_time_in_it() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let base = server.push_new(alice(), message("base"));
        server.push_on(&[&base], bob(), topic("bob"));
        let event = server.make_on(&[id(&base)], carol(), topic("carol"));
        let verdict = server.judge(Incoming::new(verified(&server.rules, &event), Mode::Pushed));
        let Verdict::Judged(judged) = verdict else { panic!("{verdict:?}") };
        // A message moves no states, so what was resolved holds.
        server.push_new(bob(), message("meanwhile"));
        let before = runs(&server);
        let settled = server.settle(judged);
        assert!(matches!(settled, Settled::Store(_)), "{version}");
        assert_eq!(runs(&server), before, "nothing was resolved in the turn");

        let verdict = server.judge(Incoming::new(verified(&server.rules, &event), Mode::Pushed));
        let Verdict::Judged(mut judged) = verdict else { panic!("{verdict:?}") };
        server.push_new(bob(), topic("meanwhile"));
        let before = runs(&server);
        judged = match server.settle(judged) {
            Settled::Moved(judged) => judged,
            other => panic!("{version}: {other:?}"),
        };
        assert_eq!(runs(&server), before, "nothing was resolved in the turn");
        ready(foresee(&server, &server.facts(), server.head(), &mut judged, &server)).unwrap();
        assert_eq!(runs(&server), before + 1);
        // They move once more.
        server.push_new(bob(), topic("again"));
        let Settled::Store(decision) = server.settle(judged) else { panic!("it is stored") };
        server.commit(&decision);
        assert_eq!(server.extremities.len(), 2, "{version}");
    }
}

#[test]
fn an_event_is_judged_again_if_other_events_are_rejected_now() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let dora = user_id!("@dora:d.test");
        let joined = server.push_new(dora, member(dora, "join"));
        let said = server.make(dora, message("x"));
        let verdict = server.judge(Incoming::new(verified(&server.rules, &said), Mode::Pushed));
        let Verdict::Judged(judged) = verdict else { panic!("{verdict:?}") };
        server.reject(&id(&joined));
        let Settled::Stale(incoming) = server.settle(judged) else { panic!("the join was rejected") };
        let verdict = server.judge(*incoming);
        let Verdict::Judged(judged) = verdict else { panic!("{verdict:?}") };
        assert!(judged.flags.contains(Flags::REJECTED), "{version}");
    }
}

#[test]
fn an_event_that_became_an_outlier_meanwhile_is_judged_again_and_keeps_its_number() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let event = server.make(bob(), topic("x"));
        let verdict = server.judge(Incoming::new(verified(&server.rules, &event), Mode::Pushed));
        let Verdict::Judged(judged) = verdict else { panic!("{verdict:?}") };
        let outlier = server.receive(&event, Mode::Outlier);
        let Settled::Stale(incoming) = server.settle(judged) else { panic!("it is stored as an outlier") };
        assert_eq!(server.take(*incoming).nid, outlier.nid, "{version}");
    }
}

#[test]
fn a_local_event_does_what_a_received_one_does() {
    for version in supported_room_versions() {
        let mut server = Server::with_room(version);
        let mut other = server.copy(version);
        let base = server.push_new(alice(), message("base"));
        other.push(base.event.pdu());
        let steps: [(&[&str], Content); 4] = [
            (&[], message("one line")),
            (&["bob", "carol"], message("merge")),
            (&["bob", "carol"], topic("merge")),
            (&[], member(carol(), "ban")),
        ];
        for (forks, (event_type, state_key, content)) in steps {
            let tips = server.tips();
            for fork in forks {
                let sender = if *fork == "bob" { bob() } else { carol() };
                let event = server.make_on(&tips, sender, topic(fork));
                server.push(&event);
                other.push(&event);
            }
            let ours = server.send(alice(), draft(event_type, state_key.as_deref(), content)).unwrap();
            let theirs = other.push(ours.event.pdu());
            assert_eq!(ours.flags, theirs.flags | Flags::OURS, "{version}");
            assert_eq!((ours.placing, &ours.missing), (theirs.placing, &theirs.missing));
            assert_eq!((ours.prev.len(), ours.covers.len()), (theirs.prev.len(), theirs.covers.len()));
            assert_eq!((ours.auth.len(), ours.auth_depth), (theirs.auth.len(), theirs.auth_depth));
            assert_eq!((server.tips(), server.named(server.state())), (other.tips(), other.named(other.state())));
            let before = |server: &Server, of: &Decision| server.named(&server.whole(of.before));
            assert_eq!(before(&server, &ours), before(&other, &theirs), "{version}");
            assert_eq!(ours.event.pdu().prev_events.len(), 1.max(forks.len()), "all extremities are named");
        }
    }
}

#[test]
fn a_local_event_that_breaks_a_rule_is_not_stored() {
    for version in versions() {
        let mut server = Server::with_room(&version);
        let (tips, events) = (server.tips(), server.events.len());
        for (sender, content) in [
            (carol(), ("m.room.name", Some(String::new()), json!({ "name": "x" }))),
            (user_id!("@dora:us.test"), message("x")),
        ] {
            let (event_type, state_key, content) = content;
            let refused = server.send(sender, draft(event_type, state_key.as_deref(), content)).unwrap_err();
            assert!(matches!(refused, LocalError::NotAllowed(_)), "{version}: {refused}");
        }
        let malformed = draft("m.room.member", None, json!({ "membership": "join" }));
        assert!(matches!(server.send(alice(), malformed), Err(LocalError::NotAllowed(_))));
        assert_eq!((server.tips(), server.events.len()), (tips, events), "{version}");
    }
}

#[test]
fn a_local_event_names_20_of_many_extremities_and_follows_on_their_state() {
    for version in [RoomVersionId::V11, RoomVersionId::V12] {
        let mut server = Server::with_room(&version);
        let dora = user_id!("@dora:us.test");
        server.send(dora, draft("m.room.member", Some(dora.as_str()), json!({ "membership": "join" }))).unwrap();
        let base = server.push_new(alice(), message("base"));
        for number in 0..25 {
            // Neither one of the ten oldest nor one of the ten deepest.
            let is_ban = number == 12;
            let content = if is_ban { member(dora, "ban") } else { topic(&number.to_string()) };
            let sender = if is_ban { alice() } else { bob() };
            let made = Made { depth: 100 + number, ..server.made_on(&[id(&base)], sender, &content) };
            let event = made.build(&server.rules, &server.room_id);
            server.push(&event);
        }
        let message = || draft("m.room.message", None, json!({}));
        // The state that her event would follow on does not know of the ban, but the current one does.
        let refused = server.send(dora, message()).unwrap_err();
        assert!(matches!(refused, LocalError::NotAllowed(_)), "{version}: {refused}");
        assert_eq!(server.extremities.len(), 25);

        let sent = server.send(alice(), message()).unwrap();
        let pdu = sent.event.pdu();
        assert_eq!((pdu.prev_events.len(), pdu.depth, sent.flags), (20, 125, Flags::OURS), "{version}");
        assert_eq!((server.extremities.len(), sent.before.side.is_some()), (6, true), "{version}");
    }
}
