//! The times of jobs: how long an answer may take, when a failed round is repeated, and when a job is given up.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::build::template::TemplateKind;

/// The time in which a server must answer with a template. It only has to read its memory.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(10);

/// The time after which the next server is asked for a template too. A person waits.
pub(super) const NEXT_ASK: Duration = Duration::from_secs(3);

/// The time in which a server must begin to answer a join. Some collect the state of a large room first, for minutes.
const SEND_JOIN_LIMIT: Duration = Duration::from_mins(3);

/// The time in which a server must answer a knock or a leave, which it only has to check and store.
const SEND_LIMIT: Duration = Duration::from_secs(30);

/// The time for which a join or a knock is tried whose outcome is unknown. After it the user has forgotten it, and a leave
/// follows.
pub const JOIN_LIMIT: Duration = Duration::from_hours(24);

/// The time for which a leave is tried. A server that is away for longer has probably gone.
pub const LEAVE_LIMIT: Duration = Duration::from_hours(7 * 24);

/// The time between a lost answer and the leave that follows a join. A server may still be working on the join, and would
/// say that there is nothing to leave.
pub const SETTLE: Duration = Duration::from_mins(10);

/// The waits after the first, second, … failed round. The last one stays.
const WAITS: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_hours(1),
];

/// The part of a wait, in percent, by which it is made longer or shorter by chance, so that the jobs that one outage has
/// failed do not all come back in the same second.
const JITTER_PERCENT: u32 = 20;

/// The longest wait that another server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);

/// The longest wait there is, with a margin. A time farther ahead was stored while the clock was wrong.
const LONGEST_WAIT: Duration = Duration::from_hours(2);

/// The time in which a server must begin to answer an event.
pub(super) fn send_limit(kind: TemplateKind) -> Duration {
    match kind {
        TemplateKind::Join => SEND_JOIN_LIMIT,
        TemplateKind::Knock | TemplateKind::Leave => SEND_LIMIT,
    }
}

/// The time at which a job that begins now is given up.
pub(super) fn limit_ms(kind: TemplateKind, now_ms: i64) -> i64 {
    after(now_ms, if kind == TemplateKind::Leave { LEAVE_LIMIT } else { JOIN_LIMIT })
}

/// The wait after `tries` failed rounds.
pub(super) fn wait(tries: u32, retry_after: Option<Duration>, random: &mut dyn Rng) -> Duration {
    let index = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX).min(WAITS.len() - 1);
    let percent = random.random_range(100 - JITTER_PERCENT..=100 + JITTER_PERCENT);
    (WAITS[index] * percent / 100).max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Returns whether a time has not come yet.
pub(super) fn is_early(now_ms: i64, at_ms: i64) -> bool {
    now_ms < at_ms && at_ms <= after(now_ms, LONGEST_WAIT)
}

/// The time after a wait.
pub(super) fn after(now_ms: i64, wait: Duration) -> i64 {
    now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn each_wait_is_longer_and_the_last_one_stays() {
        let mut random = StdRng::seed_from_u64(1);
        for (tries, seconds) in [(0, 5), (1, 5), (2, 30), (3, 120), (4, 600), (5, 3_600), (6, 3_600), (u32::MAX, 3_600)]
        {
            let waits: Vec<_> =
                (0..200).map(|_| wait(tries, None, &mut random).as_secs_f64() / f64::from(seconds)).collect();
            assert!(waits.iter().all(|part| (0.8..=1.2).contains(part)), "{tries}: {waits:?}");
            assert!(waits.iter().any(|part| *part < 0.9) && waits.iter().any(|part| *part > 1.1), "{tries}: {waits:?}");
        }
    }

    #[test]
    fn a_server_may_ask_for_a_longer_wait_within_a_bound() {
        let mut random = StdRng::seed_from_u64(1);
        let mut check = |tries, asked, expected| {
            assert_eq!(wait(tries, Some(Duration::from_secs(asked)), &mut random).as_secs(), expected);
        };
        check(1, 100, 100);
        check(1, 3_600, 3_600);
        check(1, u64::MAX, 3_600);
        assert!((4..=6).contains(&wait(1, Some(Duration::ZERO), &mut random).as_secs()));
    }

    #[test]
    fn a_time_too_far_ahead_is_that_of_a_wrong_clock() {
        let now = 1_700_000_000_000;
        for (ahead_ms, expected) in
            [(-1, false), (0, false), (1, true), (7_200_000, true), (7_200_001, false), (i64::MAX - now, false)]
        {
            assert_eq!(is_early(now, now + ahead_ms), expected, "{ahead_ms}");
        }
        assert!(after(now, LONGEST_WAIT) > after(now, WAITS[4] * 120 / 100));
        assert!(after(now, LONGEST_WAIT) > after(now, SETTLE));
    }
}
