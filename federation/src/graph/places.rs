//! Gaps in a timeline, and the places of events of history, which are fetched into gaps.
//!
//! A gap is right before a place. Events that are fetched into it get the places before that one, going back. A gap stays
//! after it is filled, because a client that reads across it must be told of a limited timeline.

use crate::ids::TimelinePlace;

/// The distance in `sub` of two islands whose ages differ by one millisecond, and the number of places that one call
/// tries. Events that are fetched later before an island, and islands of the same age, go between.
const SUBS_OF_A_MS: i64 = 4_096;

/// The greatest age of an island in milliseconds, about 35,000 years: its place is still a number of 63 bits. Other servers
/// claim any time.
const MAX_AGE_MS: i64 = 1 << 50;

/// A place in a timeline before which events are missing, or were missing until they were fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The place of the event right after the gap.
    pub at: TimelinePlace,
    /// The place of the next event that is fetched into the gap, if nothing else has it.
    pub next_sub: i64,
    /// Set while events are missing.
    pub open: bool,
}

impl Gap {
    /// A new gap right before `at`.
    pub fn before(at: TimelinePlace) -> Self {
        Self { at, next_sub: at.just_before().sub, open: true }
    }

    /// Takes the place for the next event going back. `taken` returns whether an event, which can only be an island or
    /// have been fetched before one, has a place of this position already. `None`: the next 4,096 places are
    /// taken. The gap has moved on past these, so a further call tries the ones before.
    pub fn take(&mut self, taken: impl Fn(i64) -> bool) -> Option<TimelinePlace> {
        let free = first_free(self.next_sub, taken);
        self.next_sub = free.map_or_else(|| self.next_sub.saturating_sub(SUBS_OF_A_MS), |sub| sub.saturating_sub(1));
        free.map(|sub| TimelinePlace { sub, ..self.at })
    }
}

/// The `sub` of an island, an event that was fetched alone. The older it is, the further back: `age_ms` is the time by
/// which it is older than the event of the line that has the same position. `taken` returns whether another event has a
/// place of this position. `None`: 4,096 places that it could have are taken.
pub fn island(age_ms: i64, taken: impl Fn(i64) -> bool) -> Option<i64> {
    // The places nearest to the event of the line stay free for its gap, also if the island claims to be newer.
    first_free(-SUBS_OF_A_MS * age_ms.clamp(1, MAX_AGE_MS), taken)
}

/// The first of the next places going back that is not taken.
fn first_free(from: i64, taken: impl Fn(i64) -> bool) -> Option<i64> {
    (0..SUBS_OF_A_MS).map(|further| from.saturating_sub(further)).find(|sub| !taken(*sub))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::Position;

    const LINE: TimelinePlace = TimelinePlace::on_line(Position(7));

    #[test]
    fn events_fetched_into_a_gap_are_before_it_going_back() {
        let mut gap = Gap::before(LINE);
        let subs: Vec<_> = (0..3).map(|_| gap.take(|_| false).unwrap().sub).collect();
        assert_eq!((subs, gap.next_sub, gap.open), (vec![-1, -2, -3], -4, true));
        // The gap of an island is before the island.
        let mut gap = Gap::before(TimelinePlace { sub: -4_096, ..LINE });
        assert_eq!(gap.take(|_| false), Some(TimelinePlace { sub: -4_097, ..LINE }));
    }

    #[test]
    fn an_island_has_a_place_by_its_age() {
        let check = |age_ms, taken: &[i64], expected| {
            assert_eq!(island(age_ms, |sub| taken.contains(&sub)), Some(expected), "{age_ms} ms");
        };
        check(1, &[], -4_096);
        check(2, &[], -8_192);
        check(2, &[-8_192, -8_193, -8_195], -8_194);
        // The event claims to be as new as the event of the line, or newer.
        check(0, &[], -4_096);
        check(i64::MIN, &[], -4_096);
        // A day, and any time.
        check(86_400_000, &[], -353_894_400_000);
        check(i64::MAX, &[], -(1 << 62));
        assert_eq!(island(1, |_| true), None);
        assert_eq!(island(i64::MAX, |_| true), None);
    }

    #[test]
    fn a_gap_passes_an_island_that_it_does_not_meet() {
        let island: BTreeSet<i64> = (-12_000..=-4_096).collect();
        let mut gap = Gap { next_sub: -4_095, ..Gap::before(LINE) };
        let mut take = || gap.take(|sub| island.contains(&sub)).map(|place| place.sub);
        // A call that finds nothing moves on, so the next one finds the place before all of the island's.
        assert_eq!([take(), take(), take(), take()], [Some(-4_095), None, Some(-12_001), Some(-12_002)]);
    }

    proptest! {
        #[test]
        fn places_are_taken_once_and_the_older_island_is_further_back(
            ages in proptest::collection::vec((1_i64..4, 0_usize..20), 1..40),
        ) {
            let mut taken: BTreeSet<i64> = BTreeSet::new();
            let mut islands: Vec<(i64, i64)> = Vec::new();
            for (age_ms, fetched) in ages {
                let sub = island(age_ms, |sub| taken.contains(&sub)).unwrap();
                prop_assert!(taken.insert(sub));
                for &(other_ms, other) in &islands {
                    prop_assert!(other_ms == age_ms || (other_ms < age_ms) == (other > sub));
                }
                islands.push((age_ms, sub));
                let mut gap = Gap::before(TimelinePlace { sub, ..LINE });
                let mut last = sub;
                for _ in 0..fetched {
                    let place = gap.take(|sub| taken.contains(&sub)).unwrap();
                    prop_assert!(place.sub < last && taken.insert(place.sub));
                    last = place.sub;
                }
            }
        }
    }
}
