//! Time, as the sender is told of it: a clock that never jumps for pauses, and the clock of the wall for what is stored.

use std::time::Duration;

/// A moment of a clock that never jumps: milliseconds since a start that stays the same while the process runs. Moments
/// before the start are negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(pub i64);

impl Moment {
    /// The moment that is later by `pause`.
    #[must_use]
    pub fn after(self, pause: Duration) -> Self {
        Self(self.0.saturating_add(millis(pause)))
    }

    /// The time since an earlier moment; zero if that one is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or_default())
    }
}

/// The present, on both clocks.
///
/// Pauses are measured by `moment`, so a wall clock that is set makes none longer or shorter. Only a restart goes by
/// the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    pub moment: Moment,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: i64,
}

impl Now {
    /// The time of the wall clock at `moment`, if the clock is right now.
    pub(super) fn unix_ms_at(self, moment: Moment) -> i64 {
        self.unix_ms.saturating_add(moment.0.saturating_sub(self.moment.0))
    }

    /// The moment of a time of the wall clock, if the clock is right now.
    pub(super) fn moment_at(self, unix_ms: i64) -> Moment {
        Moment(self.moment.0.saturating_add(unix_ms.saturating_sub(self.unix_ms)))
    }
}

/// A length in whole milliseconds.
pub(super) fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_stored_as_a_time_of_the_wall_clock_and_found_again() {
        let before = Now { moment: Moment(5_000), unix_ms: 1_700_000_000_000 };
        let failing_since = Moment(-20_000);
        let stored = before.unix_ms_at(failing_since);
        assert_eq!(stored, 1_699_999_975_000);
        // A restart a minute later has another start.
        let after = Now { moment: Moment(0), unix_ms: 1_700_000_060_000 };
        assert_eq!(after.moment.since(after.moment_at(stored)), Duration::from_secs(85));
        assert_eq!(failing_since.since(Moment(0)), Duration::ZERO);
        assert_eq!(Moment(i64::MAX).after(Duration::MAX), Moment(i64::MAX));
    }
}
