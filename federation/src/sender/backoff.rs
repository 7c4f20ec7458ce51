//! Back-off: the pause before a destination that failed is tried again.
//!
//! The interval doubles from a second to an hour. In the first ten minutes it is a minute at most, so that a server
//! that restarts is found soon. After 30 days the destination is dead, and tried once a day.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use super::time::{Moment, Now, millis};

/// The first interval: a connection that broke is made again at once, and a restart takes seconds.
const FIRST: Duration = Duration::from_secs(1);

/// The time in which most restarts and updates of a server end.
const RECENT: Duration = Duration::from_secs(600);

/// The longest interval in the first ten minutes.
const MOST_RECENT: Duration = Duration::from_secs(60);

/// The longest interval, and the longest wish of a destination that is respected: an hour.
pub(super) const MOST: Duration = Duration::from_secs(3_600);

/// The time after which a destination that always failed is dead: 30 days.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The interval of dead destinations: a day.
const DEAD: Duration = Duration::from_secs(24 * 3_600);

/// The least pause after a failure when the destination contacts us meanwhile. One that sends to us, and that we cannot
/// reach, costs a try each ten seconds at most.
const CONTACT: Duration = Duration::from_secs(10);

/// The time over which tries are spread that were due before the start: as long as the first ten minutes' interval, so
/// that a restart does not try a thousand destinations at once.
const SPREAD: Duration = Duration::from_secs(60);

/// The state of a destination that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Backoff {
    /// The first failure since the last success or contact.
    pub failing_since: Moment,
    /// The interval before chance; zero if the next failure is to be the first again.
    pub interval: Duration,
    /// The moment of the next try.
    pub next_at: Moment,
    failed_at: Moment,
    /// The destination's wish, within bounds. A contact does not shorten it: a busy server contacts us all the time.
    not_before: Moment,
}

impl Backoff {
    /// The state after a failure. `retry_after` is the pause that the destination asks for.
    pub fn failed(previous: Option<Self>, now: Now, retry_after: Option<Duration>, rand: &mut dyn Rng) -> Self {
        let failing_since = previous.map_or(now.moment, |previous| previous.failing_since);
        let most = longest(now.moment.since(failing_since));
        let interval = match previous.map(|previous| previous.interval) {
            _ if most == DEAD => DEAD,
            None | Some(Duration::ZERO) => FIRST,
            Some(interval) => (interval * 2).min(most),
        };
        // A fifth more or less, so that a server that is back is not met by all at once.
        let pause = draw(interval * 4 / 5, (interval * 6 / 5).min(most), rand);
        let not_before = now.moment.after(retry_after.unwrap_or_default().min(MOST));
        let next_at = now.moment.after(pause).max(not_before);
        Self { failing_since, interval, next_at, failed_at: now.moment, not_before }
    }

    /// The state that was stored before a restart. `interval` zero stands for no failure: `None`.
    pub fn stored(
        failing_since: Moment,
        interval: Duration,
        next_at: Moment,
        now: Now,
        rand: &mut dyn Rng,
    ) -> Option<Self> {
        if interval.is_zero() {
            return None;
        }
        let interval = interval.min(DEAD);
        let next_at = if next_at > now.moment {
            // The wall clock may have been set back since.
            next_at.min(now.moment.after(interval * 6 / 5).max(now.moment.after(MOST)))
        } else {
            now.moment.after(draw(Duration::ZERO, SPREAD.min(interval), rand))
        };
        let failing_since = failing_since.min(now.moment);
        Some(Self { failing_since, interval, next_at, failed_at: failing_since, not_before: now.moment })
    }

    /// Notes a request of the destination: it is there again, so it is tried soon.
    pub fn contacted(&mut self, now: Now) {
        self.failing_since = now.moment;
        self.interval = Duration::ZERO;
        self.next_at = self.next_at.min(now.moment.max(self.failed_at.after(CONTACT)).max(self.not_before));
    }

    /// The time for which the destination has failed.
    pub fn failing_for(&self, now: Now) -> Duration {
        now.moment.since(self.failing_since)
    }

    pub fn is_dead(&self, now: Now) -> bool {
        self.failing_for(now) >= DEAD_AFTER
    }
}

/// The longest interval of a destination that has failed for this time.
fn longest(failing_for: Duration) -> Duration {
    match failing_for {
        recent if recent < RECENT => MOST_RECENT,
        lasting if lasting < DEAD_AFTER => MOST,
        _ => DEAD,
    }
}

/// Draws a length of time.
pub(super) fn draw(least: Duration, most: Duration, rand: &mut dyn Rng) -> Duration {
    let (least, most) = (millis(least), millis(most));
    Duration::from_millis(rand.random_range(least..=most.max(least)).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;

    fn at(seconds: u64) -> Now {
        let ms = i64::try_from(seconds * 1_000).unwrap();
        Now { moment: Moment(ms), unix_ms: 1_700_000_000_000 + ms }
    }

    fn rand() -> StdRng {
        StdRng::seed_from_u64(0)
    }

    #[test]
    fn the_interval_doubles_up_to_its_bound() {
        // The time for which the destination has failed, the interval before, the interval and its bounds with chance, all
        // in seconds but the last.
        let check = |failing: u64, before: u64, expected: u64, least_ms: u64, most_ms: u64| {
            let now = at(40 * DAY);
            let mut previous = Backoff::failed(None, at(40 * DAY - failing), None, &mut rand());
            previous.interval = Duration::from_secs(before);
            let mut rand = rand();
            for _ in 0..200 {
                let next = Backoff::failed(Some(previous), now, None, &mut rand);
                assert_eq!(
                    (next.failing_since, next.interval.as_secs()),
                    (previous.failing_since, expected),
                    "{failing}"
                );
                let pause = next.next_at.since(now.moment).as_millis();
                assert!((u128::from(least_ms)..=u128::from(most_ms)).contains(&pause), "{failing} {before}: {pause}");
            }
        };
        check(1, 1, 2, 1_600, 2_400);
        check(3, 2, 4, 3_200, 4_800);
        check(30, 16, 32, 25_600, 38_400);
        check(60, 32, 60, 48_000, 60_000);
        check(599, 60, 60, 48_000, 60_000);
        check(600, 60, 120, 96_000, 144_000);
        check(2_000, 1_920, 3_600, 2_880_000, 3_600_000);
        check(29 * DAY, HOUR, HOUR, 2_880_000, 3_600_000);
        check(30 * DAY, HOUR, DAY, 69_120_000, 86_400_000);
        check(39 * DAY, DAY, DAY, 69_120_000, 86_400_000);
        // After a contact.
        check(5, 0, 1, 800, 1_200);
    }

    #[test]
    fn the_first_failure_begins_with_a_second() {
        let first = Backoff::failed(None, at(7), None, &mut rand());
        assert_eq!((first.failing_since, first.interval), (at(7).moment, FIRST));
        assert!((800..=1_200).contains(&first.next_at.since(at(7).moment).as_millis()));
    }

    #[test]
    fn a_wish_of_the_destination_is_respected_within_bounds() {
        let pause = |wish: Duration| {
            Backoff::failed(None, at(0), Some(wish), &mut rand()).next_at.since(at(0).moment).as_millis()
        };
        // Less than the own pause does not count.
        assert!((800..=1_200).contains(&pause(Duration::from_millis(10))));
        assert_eq!(pause(Duration::from_secs(90)), 90_000);
        assert_eq!(pause(Duration::from_secs(HOUR)), 3_600_000);
        assert_eq!(pause(Duration::from_secs(HOUR + 1)), 3_600_000);
        assert_eq!(pause(Duration::MAX), 3_600_000);
    }

    #[test]
    fn a_contact_wakes_soon_and_begins_anew() {
        let check = |contact: u64, wish: u64, expected: u64| {
            let mut backoff = Backoff::failed(None, at(0), Some(Duration::from_secs(wish)), &mut rand());
            backoff.next_at = backoff.next_at.max(at(3_000).moment);
            backoff.contacted(at(contact));
            assert_eq!(backoff.next_at, at(expected).moment, "{contact} {wish}");
            assert_eq!((backoff.failing_since, backoff.interval), (at(contact).moment, Duration::ZERO));
            // It does not move the try away, however often it comes.
            backoff.contacted(at(contact + 5));
            assert!(backoff.next_at <= at(expected).moment);
        };
        check(100, 0, 100);
        // A server that contacts us and cannot be reached.
        check(1, 0, 10);
        // A busy one, which told us to wait.
        check(100, 600, 600);
    }

    #[test]
    fn a_stored_state_goes_on_after_a_restart() {
        let stored = |interval: u64, next: i64| {
            let next_at = Moment(at(1_000).moment.0 + next * 1_000);
            Backoff::stored(at(0).moment, Duration::from_secs(interval), next_at, at(1_000), &mut rand())
        };
        let pause = |interval, next| stored(interval, next).unwrap().next_at.since(at(1_000).moment).as_secs();
        assert_eq!(stored(0, 500), None);
        assert_eq!(pause(HOUR, 500), 500);
        assert_eq!(stored(HOUR, 500).unwrap().failing_for(at(1_000)), Duration::from_secs(1_000));
        // Due before the start: soon, but not all at once.
        assert!(pause(HOUR, -500) <= 60);
        assert!(pause(1, -500) <= 1);
        // The wall clock was set back by a year.
        assert_eq!(pause(HOUR, 365 * 24 * 3_600), 4_320);
        assert_eq!(pause(1, 365 * 24 * 3_600), HOUR);
    }

    #[test]
    fn a_destination_is_dead_after_thirty_days() {
        let backoff = Backoff::failed(None, at(0), None, &mut rand());
        assert!(!backoff.is_dead(at(30 * DAY - 1)) && backoff.is_dead(at(30 * DAY)));
    }
}
