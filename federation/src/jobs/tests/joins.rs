//! Joins: their way through the states, and what each failure leads to.

use super::*;

const JOIN: TemplateKind = TemplateKind::Join;

#[test]
fn a_join_goes_through_its_states() {
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    assert_eq!(bench.due(), ["ask a.org 10", "wake +3"]);
    assert_eq!(bench.made("a", Ok(template(1, None))), ["store Join Sent", "send a.org 180"]);
    let event = bench.event();
    assert_eq!((event.depth, event.content.get()), (12, r#"{"displayname":"Alice","membership":"join"}"#));
    assert_eq!(bench.answered("a", Ok(())), ["store Join Importing", "import a.org Some(Joined)"]);
    assert_eq!(bench.due(), [""; 0], "the import is under way");
    assert_eq!(bench.step(JobInput::Imported), ["done", "store Join Resync", "resync"]);
    assert_eq!(bench.due(), [""; 0], "the resync is under way");
    assert_eq!(bench.step(JobInput::Resynced { is_complete: true }), ["delete"]);
    assert_eq!(bench.job.row().state, JobState::Done);
    assert_eq!(bench.due(), [""; 0]);
}

#[test]
fn the_next_server_is_asked_after_three_seconds_or_a_failure() {
    let mut bench = Bench::new(JOIN, &["a", "b", "d"]);
    assert_eq!(bench.due(), ["ask a.org 10", "wake +3"]);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.due(), [""; 0]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.due(), ["ask b.org 10", "wake +3"]);
    assert_eq!(bench.made("b", Err(refused(404, "M_NOT_FOUND"))), ["ask d.org 10", "wake +3"]);
    assert_eq!(bench.made("b", Ok(template(1, None))), [""; 0], "one answer a question");
    // The slow one is the first with a template. The others are not waited for, and their answers do not matter.
    assert_eq!(bench.made("a", Ok(template(1, None))), ["store Join Sent", "send a.org 180"]);
    let event = bench.event();
    assert_eq!(bench.made("d", Ok(template(2, None))), [""; 0]);
    assert_eq!(bench.event().event_id, event.event_id);
    // The server with the template comes first from now on.
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.due();
    bench.made("a", Err(AskError::NotSent));
    assert_eq!(bench.made("b", Ok(template(1, None))), ["store Join Sent", "send b.org 180"]);
    assert_eq!(bench.job.row().via, [server("b"), server("a"), server("c")]);
}

#[test]
fn an_error_of_the_room_ends_a_join_and_others_lead_to_the_next_server() {
    let check = |error: AskError, expected: &[&str]| {
        let mut bench = Bench::new(JOIN, &["a", "b"]);
        bench.due();
        let shown = format!("{error:?}");
        assert_eq!(bench.made("a", Err(error)), expected, "{shown}");
    };
    let next = &["ask b.org 10", "wake +3"];
    check(refused(403, "M_FORBIDDEN"), &["delete", "failed: a.org refused with status 403, M_FORBIDDEN"]);
    let incompatible = "failed: a.org refused with status 400, M_INCOMPATIBLE_ROOM_VERSION";
    check(refused(400, "M_INCOMPATIBLE_ROOM_VERSION"), &["delete", incompatible]);
    check(refused(404, "M_NOT_FOUND"), next);
    check(refused(400, "M_UNABLE_TO_AUTHORISE_JOIN"), next);
    check(refused(400, "M_UNABLE_TO_GRANT_JOIN"), next);
    check(refused(500, "M_UNKNOWN"), next);
    check(AskError::NotSent, next);
    check(AskError::NoAnswer, next);
    check(AskError::Malformed(crate::build::template::TemplateError::NoPrevEvents), next);
}

#[test]
fn a_join_that_no_server_helps_with_fails_with_the_error_that_says_the_most() {
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.due();
    bench.made("a", Err(AskError::NoAnswer));
    bench.made("b", Err(refused(400, "M_UNABLE_TO_GRANT_JOIN")));
    let failed = bench.made("c", Err(refused(404, "M_NOT_FOUND")));
    assert_eq!(failed, ["delete", "failed: b.org refused with status 400, M_UNABLE_TO_GRANT_JOIN"]);
    assert_eq!(bench.job.row().state, JobState::Failed);
}

#[test]
fn a_lost_answer_is_followed_by_the_same_event_at_every_server() {
    let mut bench = Bench::sent(JOIN, &["a", "b"]);
    let event = bench.event();
    assert_eq!(bench.answered("a", Err(AskError::NoAnswer)), ["send b.org 180"]);
    // A word of another server does not end the join any more.
    assert_eq!(bench.answered("b", Err(refused(403, "M_FORBIDDEN"))), ["send c.org 180"]);
    let later = bench.answered("c", Err(AskError::NotSent));
    assert_eq!(later[..2], ["later: b.org refused with status 403, M_FORBIDDEN", "store Join Sent"]);
    // The next round, in another process.
    bench.restart(Duration::from_secs(10));
    assert_eq!(bench.due(), ["send a.org 180"]);
    assert_eq!(bench.event().event_id, event.event_id);
    assert_eq!(bench.answered("a", Ok(())), ["store Join Importing", "import a.org Some(Joined)"]);
}

#[test]
fn a_join_that_was_surely_not_taken_fails() {
    for error in [AskError::NotSent, refused(429, "M_LIMIT_EXCEEDED"), refused(404, "M_NOT_FOUND")] {
        let mut bench = Bench::sent(JOIN, &["c"]);
        let shown = format!("{error:?}");
        let failed = bench.answered("c", Err(error));
        assert!(failed[0] == "delete" && failed[1].starts_with("failed: "), "{shown}: {failed:?}");
    }
    let mut bench = Bench::sent(JOIN, &["a", "b"]);
    let failed = bench.answered("a", Err(refused(403, "M_FORBIDDEN")));
    assert_eq!(failed, ["delete", "failed: a.org refused with status 403, M_FORBIDDEN"]);
}

#[test]
fn a_join_whose_outcome_stays_unknown_for_a_day_is_followed_by_a_leave() {
    let mut bench = Bench::sent(JOIN, &["c"]);
    let mut rounds = 1;
    let mut last = bench.answered("c", Err(AskError::NoAnswer));
    while !last.iter().any(|effect| effect.starts_with("failed")) {
        assert_eq!(bench.row.as_ref().unwrap().state, JobState::Sent);
        bench.now_ms = bench.job.row().next_ms;
        last = bench.due();
        if last == ["send c.org 180"] {
            rounds += 1;
            bench.pass(Duration::from_mins(3));
            last = bench.answered("c", Err(AskError::NoAnswer));
        }
    }
    assert_eq!(last[0], "store Leave Make");
    assert!((20..40).contains(&rounds), "{rounds}");
    let age = Duration::from_millis(u64::try_from(bench.now_ms - START_MS).unwrap());
    assert!(age >= JOIN_LIMIT && age < JOIN_LIMIT + Duration::from_hours(2), "{age:?}");
    // The leave is an ordinary one, some minutes later.
    assert_eq!(bench.due(), ["wake +600"]);
    bench.pass(SETTLE);
    assert_eq!(bench.due(), ["ask c.org 10"]);
    assert_eq!(bench.made("c", Ok(template(2, None))), ["store Leave Sent", "send c.org 30"]);
    assert_eq!(bench.event().content.get(), r#"{"membership":"leave"}"#);
    assert_eq!(bench.answered("c", Ok(())), ["delete", "done"]);
}

#[test]
fn every_state_goes_on_after_a_restart() {
    let hour = Duration::from_hours(1);
    let mut bench = Bench::new(JOIN, &["a"]);
    bench.due();
    bench.restart(hour);
    assert_eq!(bench.due(), ["ask a.org 10", "wake +3"]);
    assert_eq!(bench.made("c", Ok(template(3, None))), [""; 0], "nothing was asked of this one");

    bench.made("a", Ok(template(1, None)));
    let event = bench.event();
    bench.restart(hour);
    assert_eq!(bench.due(), ["send a.org 180"]);
    assert!(bench.job.row().lost_answer, "the answer may have come meanwhile");

    bench.answered("a", Ok(()));
    bench.restart(hour);
    assert_eq!(bench.due(), ["send a.org 180"], "the answer is needed again");
    assert_eq!(bench.answered("a", Ok(())), ["import a.org Some(Joined)"]);
    assert_eq!(bench.event().event_id, event.event_id);

    // The import's last commit stores the row in its state after it. The process ends before the machine hears of it.
    bench.row.as_mut().unwrap().state = JobState::Joined;
    bench.restart(Duration::from_hours(100));
    assert_eq!(bench.due(), ["store Join Resync", "resync"], "a room that is here has no limit");
    bench.restart(hour);
    assert_eq!(bench.due(), ["resync"]);
    assert_eq!(bench.step(JobInput::Resynced { is_complete: true }), ["delete"]);

    // A join that nobody has waited for since yesterday.
    let mut bench = Bench::new(JOIN, &["a"]);
    bench.restart(JOIN_LIMIT);
    assert_eq!(bench.due(), ["delete", "failed: the time for it is over"]);
}

#[test]
fn an_import_that_fails_is_tried_at_other_servers_and_then_again() {
    let failing = |error| {
        let mut bench = Bench::sent(JOIN, &["a"]);
        bench.answered("a", Ok(()));
        let effects = bench.step(JobInput::NotImported(error));
        (bench, effects)
    };
    let (mut bench, effects) = failing(ImportError::Interrupted);
    assert_eq!(effects, ["send c.org 180"]);
    // It may not have heard of the join, or not take it. That settles nothing.
    let later = bench.answered("c", Err(refused(403, "M_FORBIDDEN")));
    assert_eq!(later[..2], ["later: c.org refused with status 403, M_FORBIDDEN", "store Join Importing"]);
    bench.now_ms = bench.job.row().next_ms;
    assert_eq!(bench.due(), ["send a.org 180"]);
    assert_eq!(bench.answered("a", Ok(())), ["import a.org Some(Joined)"]);
    assert_eq!(bench.step(JobInput::Imported), ["done", "store Join Resync", "resync"]);

    // Our own trouble: no other server helps.
    let (_, effects) = failing(ImportError::Internal);
    assert_eq!(effects[..2], ["later: the room could not be taken from the answer of a.org", "store Join Importing"]);

    // Every server lies about the room, but the user is in it for them.
    let (mut bench, effects) = failing(ImportError::Wrong);
    assert_eq!(effects, ["send c.org 180"]);
    bench.answered("c", Ok(()));
    let effects = bench.step(JobInput::NotImported(ImportError::Wrong));
    assert_eq!(effects[..2], ["store Leave Make", "wake +0"]);
    assert_eq!(bench.due(), ["ask c.org 10", "wake +3"], "the one that has taken it last");
}

#[test]
fn a_missing_part_of_the_state_is_fetched_for_as_long_as_it_takes() {
    let mut bench = Bench::sent(JOIN, &["a"]);
    bench.answered("a", Ok(()));
    bench.step(JobInput::Imported);
    for _ in 0..500 {
        let failed = bench.step(JobInput::Resynced { is_complete: false });
        assert_eq!((failed.len(), failed[0].as_str()), (2, "store Join Resync"));
        let wait = bench.job.row().next_ms - bench.now_ms;
        assert!((4_000..=4_320_000).contains(&wait), "{wait}");
        bench.now_ms = bench.job.row().next_ms;
        assert_eq!(bench.due(), ["resync"]);
    }
}

#[test]
fn the_users_leave_cancels_what_was_not_sent_and_follows_what_was() {
    let cancelled = "failed: the user has left";
    let mut bench = Bench::new(JOIN, &["a"]);
    bench.due();
    assert_eq!(bench.step(JobInput::Cancel), ["delete", cancelled]);
    assert_eq!(bench.made("a", Ok(template(1, None))), [""; 0]);

    // The answer decides.
    let mut bench = Bench::sent(JOIN, &["a"]);
    assert_eq!(bench.step(JobInput::Cancel), ["store Join Sent"]);
    assert_eq!(bench.answered("a", Ok(())), ["store Leave Make", "wake +0", cancelled]);
    let mut bench = Bench::sent(JOIN, &["a"]);
    bench.step(JobInput::Cancel);
    assert_eq!(bench.answered("a", Err(refused(404, "M_NOT_FOUND"))), ["delete", cancelled]);
    let mut bench = Bench::sent(JOIN, &["a"]);
    bench.step(JobInput::Cancel);
    assert_eq!(bench.answered("a", Err(AskError::NoAnswer)), ["store Leave Make", "wake +600", cancelled]);
    // Also after a restart.
    let mut bench = Bench::sent(JOIN, &["a"]);
    bench.step(JobInput::Cancel);
    bench.restart(Duration::ZERO);
    assert_eq!(bench.due(), ["store Leave Make", "wake +600", cancelled]);
    // Between two rounds.
    let mut bench = Bench::sent(JOIN, &["c"]);
    bench.answered("c", Err(AskError::NoAnswer));
    assert_eq!(bench.step(JobInput::Cancel), ["store Leave Make", "wake +600", cancelled]);
    // During the import.
    let mut bench = Bench::sent(JOIN, &["a"]);
    bench.answered("a", Ok(()));
    assert_eq!(bench.step(JobInput::Cancel), ["stop", "store Leave Make", "wake +0", cancelled]);
    assert_eq!(bench.step(JobInput::Imported), [""; 0]);
    // The room is here, and the leave is one like any other.
    let mut bench = Bench::sent(JOIN, &["a"]);
    bench.answered("a", Ok(()));
    bench.step(JobInput::Imported);
    assert_eq!(bench.step(JobInput::Cancel), [""; 0]);
}

#[test]
fn a_join_that_one_server_authorises_is_built_anew_for_another() {
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.due();
    bench.made("a", Ok(template(1, moderator("a"))));
    let first = bench.event();
    // The other servers are asked for their own template, and the first event goes to none of them.
    assert_eq!(bench.answered("a", Err(AskError::NoAnswer)), ["store Join Make", "ask b.org 10", "wake +3"]);
    assert_eq!(bench.made("b", Ok(template(2, moderator("b")))), ["store Join Sent", "send b.org 180"]);
    assert_ne!(bench.event().event_id, first.event_id);
    // The first one may have been taken, so nothing ends here.
    let asked = bench.answered("b", Err(refused(403, "M_FORBIDDEN")));
    assert_eq!(asked, ["store Join Make", "ask c.org 10"]);
    let later = bench.made("c", Err(AskError::NotSent));
    assert_eq!(later[..2], ["later: b.org refused with status 403, M_FORBIDDEN", "store Join Make"]);
    bench.restart(Duration::from_secs(10));
    assert!(bench.job.row().lost_answer && bench.job.row().event.is_none());
    assert_eq!(bench.due(), ["ask b.org 10", "wake +3"]);
    let cancelled = "failed: the user has left";
    assert_eq!(bench.step(JobInput::Cancel), ["store Leave Make", "wake +600", cancelled]);

    // Nothing was lost: the answer counts.
    let mut bench = Bench::new(JOIN, &["a"]);
    bench.due();
    bench.made("a", Ok(template(1, moderator("a"))));
    assert_eq!(bench.answered("a", Err(refused(400, "M_UNABLE_TO_GRANT_JOIN")))[0], "store Join Make");
    let failed = bench.made("c", Err(refused(404, "M_NOT_FOUND")));
    assert_eq!(failed, ["delete", "failed: a.org refused with status 400, M_UNABLE_TO_GRANT_JOIN"]);

    // Taken, but not imported: the others may know the event already, and no other one is built.
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.due();
    bench.made("a", Ok(template(1, moderator("a"))));
    bench.answered("a", Ok(()));
    assert_eq!(bench.step(JobInput::NotImported(ImportError::Interrupted)), ["send b.org 180"]);
}

#[test]
fn a_server_that_is_asked_when_another_one_answers_is_asked_again_if_need_be() {
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.due();
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.due(), ["ask b.org 10", "wake +3"]);
    bench.made("a", Ok(template(1, moderator("a"))));
    let asked = bench.answered("a", Err(refused(400, "M_UNABLE_TO_GRANT_JOIN")));
    assert_eq!(asked, ["store Join Make", "ask b.org 10", "wake +3"]);
}

#[test]
fn content_that_cannot_be_built_ends_the_join() {
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.job.row.content = RawValue::from_string(r#"{"displayname":1.5}"#.to_owned()).unwrap();
    bench.due();
    assert_eq!(bench.made("a", Ok(template(1, None))), ["delete", "failed: the event could not be built"]);
    // A template of a version that we do not have never comes from `Template::read`.
    let mut bench = Bench::new(JOIN, &["a"]);
    bench.due();
    let wrong = Template { room_version: RoomVersionId::V5, ..template(1, None) };
    assert_eq!(bench.made("a", Ok(wrong)), ["ask c.org 10"]);
}

#[test]
fn a_join_in_the_place_of_a_leave_is_followed_by_a_leave_if_it_fails() {
    let leave = |state| JobRow { state, ..new_job(TemplateKind::Leave, &["a"]).row().clone() };
    let knock = |state| JobRow { kind: TemplateKind::Knock, ..leave(state) };
    let joins = |row: &JobRow| {
        let mut bench = Bench::new(JOIN, &["c"]);
        bench.job = new_job(JOIN, &["c"]).in_place_of(row);
        bench.due();
        bench.made("c", Err(refused(403, "M_FORBIDDEN")))
    };
    let forbidden = "failed: c.org refused with status 403, M_FORBIDDEN";
    for row in [leave(JobState::Make), leave(JobState::Sent), knock(JobState::Sent), knock(JobState::Importing)] {
        assert_eq!(joins(&row), ["store Leave Make", "wake +600", forbidden], "{row:?}");
    }
    let lost = JobRow { lost_answer: true, ..knock(JobState::Make) };
    assert_eq!(joins(&lost), ["store Leave Make", "wake +600", forbidden]);
    // Nothing of this knock is anywhere.
    assert_eq!(joins(&knock(JobState::Make)), ["delete", forbidden]);
}

#[test]
fn a_late_end_of_an_import_does_not_reach_the_leave_that_follows() {
    let mut bench = Bench::sent(JOIN, &["c"]);
    bench.answered("c", Ok(()));
    bench.step(JobInput::Cancel);
    bench.due();
    bench.made("c", Ok(template(2, None)));
    assert_eq!(bench.step(JobInput::NotImported(ImportError::Interrupted)), [""; 0]);
    assert_eq!(bench.step(JobInput::Imported), [""; 0]);
    assert_eq!(bench.answered("c", Ok(())), ["delete", "done"]);
}

#[test]
fn a_leave_waits_for_a_first_join_that_may_still_come_though_a_second_one_was_taken() {
    let mut bench = Bench::new(JOIN, &["a", "b"]);
    bench.due();
    bench.made("a", Ok(template(1, moderator("a"))));
    bench.answered("a", Err(AskError::NoAnswer));
    bench.made("b", Ok(template(2, moderator("b"))));
    bench.answered("b", Ok(()));
    assert_eq!(bench.step(JobInput::Cancel)[..3], ["stop", "store Leave Make", "wake +600"]);
}
