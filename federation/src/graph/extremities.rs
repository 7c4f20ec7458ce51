//! The forward extremities of a room: accepted events of the line that no event covers. Local events are built on them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use ruma::OwnedEventId;

use crate::{build::MAX_PREV_EVENTS, ids::EventNid, standing::StateAt, state_log::StateHash};

/// The number of the deepest forward extremities that a local event names if it cannot name all. The rest are the oldest
/// ones, so that extremities with a great depth that another server claims do not keep the others for ever.
const DEEPEST_NAMED: usize = MAX_PREV_EVENTS / 2;

/// The age from which a forward extremity may be pruned, in milliseconds: one day. Younger ones are likely to be
/// named by their servers soon.
const PRUNED_AFTER_MS: i64 = 24 * 60 * 60 * 1_000;

/// A forward extremity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extremity {
    pub nid: EventNid,
    pub event_id: OwnedEventId,
    /// The depth that the event says.
    pub depth: i64,
    /// The time that the event says, in milliseconds since the Unix epoch.
    pub ts: i64,
    /// Set if this server built the event.
    pub ours: bool,
    /// The state after the event. `None`: that of the state log at the event's own position, which an event with
    /// [`Flags::TIP`](crate::standing::Flags::TIP) does not know before its commit. It stays so when the room goes on.
    pub after: Option<StateAt>,
}

/// The forward extremities of a room, in the order in which they became it. Once there is one, there is always one.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Extremities(Vec<Extremity>);

/// The room would have no forward extremity, so that no event could be built on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no forward extremity is left")]
pub struct NoneLeft;

impl Extremities {
    /// The forward extremities, in the order in which they became it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Extremity> + '_ {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none, which is so only before the create event.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes an event, and removes those that it covers. Ids that are no forward extremity are ignored.
    ///
    /// `event` is set if the event becomes a forward extremity: if it is accepted, of the line, and not covered itself.
    /// Returns whether it is now the only one, so that it gets [`Flags::TIP`](crate::standing::Flags::TIP).
    ///
    /// # Errors
    /// When none would be left. Nothing changes then.
    pub fn accept(&mut self, event: Option<Extremity>, covered: &[EventNid]) -> Result<bool, NoneLeft> {
        let Some(event) = event else {
            if self.0.iter().all(|extremity| covered.contains(&extremity.nid)) {
                return Err(NoneLeft);
            }
            self.0.retain(|extremity| !covered.contains(&extremity.nid));
            return Ok(false);
        };
        self.0.retain(|extremity| extremity.nid != event.nid && !covered.contains(&extremity.nid));
        self.0.push(event);
        Ok(self.0.len() == 1)
    }

    /// The forward extremities that a local event names, at most [`MAX_PREV_EVENTS`], and whether these are all. If they
    /// are not, the state before the event is that of the named ones and not the room's current state.
    pub fn to_name(&self) -> (Vec<&Extremity>, bool) {
        if self.0.len() <= MAX_PREV_EVENTS {
            return (self.0.iter().collect(), true);
        }
        let mut by_depth: Vec<usize> = (0..self.0.len()).collect();
        by_depth.sort_by_key(|&index| (Reverse(self.0[index].depth), index));
        let mut named: BTreeSet<usize> = by_depth.into_iter().take(DEEPEST_NAMED).collect();
        let oldest = (0..self.0.len()).filter(|index| !named.contains(index));
        let oldest: Vec<_> = oldest.take(MAX_PREV_EVENTS - DEEPEST_NAMED).collect();
        named.extend(oldest);
        (named.into_iter().map(|index| &self.0[index]).collect(), false)
    }

    /// The forward extremities that may be removed without an event that covers them, in the order of the others. Only
    /// those go that are over a day old and not ours:
    ///
    /// - of several with the same state all but one,
    /// - all others, if one has the very state that the room has now.
    ///
    /// `hashes` are the hashes of the states after them. One without a hash stays, and is no reason for others to go.
    /// `resolved` is the hash of the room's current state. At least one always stays.
    pub fn prunable(&self, hashes: &BTreeMap<EventNid, StateHash>, resolved: StateHash, now_ms: i64) -> Vec<EventNid> {
        let may_go = |event: &Extremity| !event.ours && now_ms.saturating_sub(event.ts) > PRUNED_AFTER_MS;
        // For each state the one that stays: one that may not go, or else the deepest.
        let mut stays: BTreeMap<[u8; 16], &Extremity> = BTreeMap::new();
        let with_hash = || self.0.iter().filter_map(|event| Some((hashes.get(&event.nid)?.to_bytes(), event)));
        for (hash, event) in with_hash() {
            let rank = |event: &Extremity| (!may_go(event), event.depth);
            let kept = stays.entry(hash).or_insert(event);
            if rank(event) > rank(kept) {
                *kept = event;
            }
        }
        let is_reason = |other: Option<&&Extremity>, event: &Extremity| other.is_some_and(|it| it.nid != event.nid);
        let goes = |(hash, event): &([u8; 16], &Extremity)| {
            may_go(event) && (is_reason(stays.get(hash), event) || is_reason(stays.get(&resolved.to_bytes()), event))
        };
        with_hash().filter(goes).map(|(_, event)| event.nid).collect()
    }
}

impl FromIterator<Extremity> for Extremities {
    /// The stored forward extremities, in the order in which they became it.
    fn from_iter<I: IntoIterator<Item = Extremity>>(extremities: I) -> Self {
        Self(extremities.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;
    const OLD_MS: i64 = NOW_MS - PRUNED_AFTER_MS - 1;

    fn extremity(nid: i64, depth: i64) -> Extremity {
        let event_id = format!("${nid}").try_into().unwrap();
        Extremity { nid: EventNid(nid), event_id, depth, ts: OLD_MS, ours: false, after: None }
    }

    fn nids<'a>(extremities: impl IntoIterator<Item = &'a Extremity>) -> Vec<i64> {
        extremities.into_iter().map(|extremity| extremity.nid.0).collect()
    }

    fn hash(number: u8) -> StateHash {
        StateHash::from_bytes([number; 16])
    }

    #[test]
    fn an_event_is_added_and_what_it_covers_goes() {
        let check = |before: &[i64], event: Option<i64>, covered: &[i64], after: &[i64], is_only: bool| {
            let mut extremities: Extremities = before.iter().map(|nid| extremity(*nid, 1)).collect();
            let covered: Vec<_> = covered.iter().copied().map(EventNid).collect();
            let result = extremities.accept(event.map(|nid| extremity(nid, 1)), &covered);
            assert_eq!((result, nids(extremities.iter())), (Ok(is_only), after.to_vec()), "{before:?}");
        };
        check(&[], Some(1), &[], &[1], true);
        check(&[1], Some(2), &[1], &[2], true);
        check(&[1], Some(2), &[], &[1, 2], false);
        check(&[1, 2, 3], Some(4), &[3, 1], &[2, 4], false);
        // A merge of all branches.
        check(&[1, 2, 3], Some(4), &[1, 2, 3], &[4], true);
        // An event that is no extremity itself: of history, failed and covered, or accepted and covered.
        check(&[1, 2], None, &[2], &[1], false);
        check(&[1], None, &[], &[1], false);
        // Ids that are no extremity.
        check(&[2], Some(3), &[1, 9], &[2, 3], false);
        // An event that is one already is there once.
        check(&[1, 2], Some(1), &[], &[2, 1], false);
    }

    #[test]
    fn the_last_extremity_never_goes() {
        for covered in [&[1, 2][..], &[1, 2, 3]] {
            let mut extremities: Extremities = [extremity(1, 1), extremity(2, 1)].into_iter().collect();
            let covered: Vec<_> = covered.iter().copied().map(EventNid).collect();
            assert_eq!(extremities.accept(None, &covered), Err(NoneLeft));
            assert_eq!(nids(extremities.iter()), [1, 2], "nothing changed");
        }
        let mut none = Extremities::default();
        assert_eq!(none.accept(None, &[]), Err(NoneLeft), "a room begins with its create event");
    }

    #[test]
    fn a_local_event_names_the_ten_deepest_and_the_ten_oldest() {
        let all: Extremities = (1..=20).map(|nid| extremity(nid, 1)).collect();
        let (named, is_all) = all.to_name();
        assert_eq!((nids(named), is_all), ((1..=20).collect(), true));

        // The newest are the deepest.
        let many: Extremities = (1..=1_000).map(|nid| extremity(nid, nid)).collect();
        let (named, is_all) = many.to_name();
        assert_eq!((nids(named), is_all), ((1..=10).chain(991..=1_000).collect(), false));

        // The oldest are the deepest, so the next ones are named as the oldest.
        let many: Extremities = (1..=1_000).map(|nid| extremity(nid, -nid)).collect();
        assert_eq!(nids(many.to_name().0), (1..=20).collect::<Vec<_>>());

        // The oldest of equal ones.
        let many: Extremities = (1..=21).map(|nid| extremity(nid, i64::MAX)).collect();
        assert_eq!(nids(many.to_name().0), (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn extremities_without_an_own_state_are_pruned_after_a_day() {
        // Each has a hash, and whether it may go; 0 stands for no hash. The nid is the index.
        let check = |extremities: &[(u8, bool)], resolved: u8, expected: &[i64]| {
            let all = extremities.iter().zip(0..);
            let made = all.clone().map(|((_, may_go), nid)| Extremity { ours: !may_go, ..extremity(nid, nid) });
            let hashes = all.filter(|((number, _), _)| *number > 0);
            let hashes = hashes.map(|((number, _), nid)| (EventNid(nid), hash(*number))).collect();
            let pruned = made.collect::<Extremities>().prunable(&hashes, hash(resolved), NOW_MS);
            assert_eq!(pruned, expected.iter().copied().map(EventNid).collect::<Vec<_>>(), "{extremities:?}");
        };
        check(&[], 9, &[]);
        check(&[(9, true)], 9, &[]);
        check(&[(1, true), (2, true)], 9, &[]);
        // The deepest of a pair stays, or the one that may not go.
        check(&[(1, true), (1, true)], 9, &[0]);
        check(&[(1, false), (1, true)], 9, &[1]);
        check(&[(1, false), (1, false)], 9, &[]);
        check(&[(1, true), (2, true), (1, true), (2, true), (2, false)], 9, &[0, 1, 3]);
        // One has the resolved state: all others that may go do.
        check(&[(1, true), (9, true), (2, true)], 9, &[0, 2]);
        check(&[(1, true), (9, true), (9, true), (2, false)], 9, &[0, 1]);
        // One whose state is not known stays, and is no reason.
        check(&[(0, true), (0, true), (1, true)], 9, &[]);
        check(&[(0, true), (9, true)], 9, &[]);
    }

    #[test]
    fn young_extremities_and_ours_stay() {
        let check = |change: fn(&mut Extremity), goes: bool| {
            let (mut first, second) = (extremity(1, 1), extremity(2, 2));
            change(&mut first);
            let hashes = [(EventNid(1), hash(1)), (EventNid(2), hash(1))].into();
            let both: Extremities = [first, Extremity { ours: true, ..second }].into_iter().collect();
            assert_eq!(both.prunable(&hashes, hash(9), NOW_MS) == [EventNid(1)], goes);
        };
        check(|_| {}, true);
        check(|event| event.ours = true, false);
        check(|event| event.ts += 1, false);
        // Another server may claim any time.
        check(|event| event.ts = i64::MAX, false);
        check(|event| event.ts = i64::MIN, true);
    }

    proptest! {
        #[test]
        fn a_pruned_extremity_has_its_state_in_one_that_stays(
            drawn in proptest::collection::vec((0_u8..5, any::<bool>(), 0_i64..4), 1..12),
            resolved in 1_u8..5,
        ) {
            let all: Vec<_> = drawn.iter().zip(0..).map(|(&(_, may_go, depth), nid)| {
                Extremity { ours: !may_go, ..extremity(nid, depth) }
            }).collect();
            let hash_of = |nid: i64| {
                let number = drawn[usize::try_from(nid).unwrap()].0;
                (number > 0).then(|| hash(number))
            };
            let hashes = nids(&all).into_iter().filter_map(|nid| Some((EventNid(nid), hash_of(nid)?))).collect();
            let pruned = all.iter().cloned().collect::<Extremities>().prunable(&hashes, hash(resolved), NOW_MS);
            let stay: Vec<_> = all.iter().filter(|event| !pruned.contains(&event.nid)).collect();
            prop_assert!(!stay.is_empty());
            for event in all.iter().filter(|event| pruned.contains(&event.nid)) {
                prop_assert!(!event.ours);
                let own = hash_of(event.nid.0);
                prop_assert!(own.is_some());
                let same = |other: &&Extremity| [own, Some(hash(resolved))].contains(&hash_of(other.nid.0));
                prop_assert!(stay.iter().copied().any(|other| same(&other)));
            }
            // Nothing more goes afterwards.
            let left: Extremities = stay.into_iter().cloned().collect();
            prop_assert_eq!(left.prunable(&hashes, hash(resolved), NOW_MS), []);
        }
    }
}
