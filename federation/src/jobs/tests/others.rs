//! Knocks and leaves, where they differ from joins.

use super::*;

#[test]
fn a_knock_ends_after_its_import() {
    let mut bench = Bench::new(TemplateKind::Knock, &["a"]);
    bench.due();
    assert_eq!(bench.made("a", Ok(template(1, None))), ["store Knock Sent", "send a.org 30"]);
    assert_eq!(bench.event().content.get(), r#"{"displayname":"Alice","membership":"knock"}"#);
    assert_eq!(bench.answered("a", Ok(())), ["store Knock Importing", "import a.org None"]);
    assert_eq!(bench.step(JobInput::Imported), ["done"]);
    assert_eq!(bench.job.row().state, JobState::Done);
}

#[test]
fn a_knock_whose_answer_is_lost_is_repeated_and_retracted_after_a_day() {
    let mut bench = Bench::sent(TemplateKind::Knock, &["c"]);
    let event = bench.event();
    let later = bench.answered("c", Err(refused(502, "M_UNKNOWN")));
    assert_eq!(later[..2], ["later: c.org refused with status 502, M_UNKNOWN", "store Knock Sent"]);
    bench.now_ms = bench.job.row().next_ms;
    assert_eq!(bench.due(), ["send c.org 30"]);
    assert_eq!(bench.event().event_id, event.event_id);
    bench.restart(JOIN_LIMIT);
    assert_eq!(bench.due(), ["store Leave Make", "wake +600", "failed: the time for it is over"]);
}

#[test]
fn a_leave_is_tried_for_seven_days() {
    let mut bench = Bench::new(TemplateKind::Leave, &["c"]);
    let mut rounds = 0;
    loop {
        let asked = bench.due();
        if asked != ["ask c.org 10"] {
            assert_eq!(asked, ["delete", "failed: the time for it is over"]);
            break;
        }
        rounds += 1;
        bench.pass(Duration::from_secs(10));
        let later = bench.made("c", Err(AskError::NoAnswer));
        assert_eq!(later[..2], ["later: no server that could be in the room can be reached", "store Leave Make"]);
        bench.restart(Duration::ZERO);
        bench.now_ms = bench.job.row().next_ms;
    }
    assert!((150..200).contains(&rounds), "{rounds}");
    let age = Duration::from_millis(u64::try_from(bench.now_ms - START_MS).unwrap());
    assert!(age >= LEAVE_LIMIT && age < LEAVE_LIMIT + Duration::from_hours(2), "{age:?}");
}

#[test]
fn a_leave_is_always_the_same_event_once_it_is_signed() {
    let mut bench = Bench::sent(TemplateKind::Leave, &["a"]);
    let event = bench.event();
    for round in 0..10 {
        let error = || if round % 2 == 0 { AskError::NoAnswer } else { AskError::NotSent };
        assert_eq!(bench.answered("a", Err(error())), ["send c.org 30"]);
        let later = bench.answered("c", Err(error()));
        assert_eq!(later[0], "later: no server that could be in the room can be reached");
        bench.restart(Duration::ZERO);
        bench.now_ms = bench.job.row().next_ms;
        assert_eq!(bench.due(), ["send a.org 30"]);
        assert_eq!(bench.event().event_id, event.event_id);
    }
    assert_eq!(bench.answered("a", Ok(())), ["delete", "done"]);
}

#[test]
fn a_leave_ends_when_every_server_says_that_there_is_nothing_to_leave() {
    let mut bench = Bench::new(TemplateKind::Leave, &["a"]);
    bench.due();
    // The first one may only be late.
    assert_eq!(bench.made("a", Err(refused(403, "M_FORBIDDEN"))), ["ask c.org 10"]);
    let failed = bench.made("c", Err(refused(404, "M_NOT_FOUND")));
    assert_eq!(failed, ["delete", "failed: a.org refused with status 403, M_FORBIDDEN"]);
    // One that cannot be reached may know better.
    let mut bench = Bench::new(TemplateKind::Leave, &["a"]);
    bench.due();
    bench.made("a", Err(AskError::NotSent));
    let later = bench.made("c", Err(refused(403, "M_FORBIDDEN")));
    assert_eq!(later[0], "later: c.org refused with status 403, M_FORBIDDEN");
    bench.now_ms = bench.job.row().next_ms;
    assert_eq!(bench.due(), ["ask a.org 10", "wake +3"]);
}

#[test]
fn a_leave_is_not_disturbed_by_another_one() {
    let mut bench = Bench::new(TemplateKind::Leave, &["c"]);
    bench.due();
    assert_eq!(bench.step(JobInput::Cancel), [""; 0]);
    bench.made("c", Ok(template(1, None)));
    assert_eq!(bench.step(JobInput::Cancel), [""; 0]);
    let later = bench.answered("c", Err(AskError::NotSent));
    assert_eq!(later[1], "store Leave Signed", "no server has it");
    assert_eq!(bench.step(JobInput::Cancel), [""; 0]);
}

#[test]
fn a_server_may_ask_for_time() {
    let mut bench = Bench::new(TemplateKind::Leave, &["c"]);
    bench.due();
    let retry_after = Some(Duration::from_secs(1_000));
    let busy = AskError::Refused { status: 429, errcode: ErrorCode::from("M_LIMIT_EXCEEDED"), retry_after };
    assert_eq!(bench.made("c", Err(busy))[2], "wake +1000");
    // A clock that was set back does not hold the job for longer than the longest wait.
    assert_eq!(bench.due(), ["wake +1000"]);
    bench.now_ms -= 86_400_000;
    assert_eq!(bench.due(), ["ask c.org 10"]);
}
