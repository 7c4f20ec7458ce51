//! The members that name a room without a name ([spec]): the first who are joined or invited.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary

use sabha_federation::state_log::{Change, Membership, StateEntry, StateLog};

use crate::store::EventNid;

/// The number of members that are kept: the spec's five, and one more, because nobody is a hero of their own list.
const KEPT: usize = 6;

/// The member events of the first joined or invited users, by the position at which the event became the current one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::room) struct Heroes(Vec<EventNid>);

impl Heroes {
    pub(in crate::room) fn new(events: Vec<EventNid>) -> Self {
        Self(events)
    }

    pub(in crate::room) fn events(&self) -> &[EventNid] {
        &self.0
    }

    /// Follows a change of the state, which is `state` now. Returns whether the heroes are others than before. Looks at the
    /// whole state only when a hero changes and more members wait for the place.
    pub(in crate::room) fn follow(&mut self, change: &Change, state: &StateLog) -> bool {
        let before = change.before.filter(is_here).map(|entry| entry.event_nid);
        let place = before.and_then(|event| self.0.iter().position(|hero| *hero == event));
        match (place, change.now.filter(is_here)) {
            (Some(_), _) if self.0.len() == KEPT => *self = Self::first_of(state),
            (Some(place), now) => {
                self.0.remove(place);
                self.0.extend(now.map(|entry| entry.event_nid));
            }
            (None, Some(now)) if self.0.len() < KEPT => self.0.push(now.event_nid),
            (None, _) => return false,
        }
        true
    }

    /// The heroes of a whole state.
    pub(in crate::room) fn first_of(state: &StateLog) -> Self {
        let mut first: Vec<StateEntry> = Vec::with_capacity(KEPT + 1);
        for (_, entry) in state.iter().filter(|(_, entry)| is_here(entry)) {
            let place = first.partition_point(|other| other.pos <= entry.pos);
            if place < KEPT {
                first.insert(place, entry);
                first.truncate(KEPT);
            }
        }
        Self(first.into_iter().map(|entry| entry.event_nid).collect())
    }
}

fn is_here(entry: &StateEntry) -> bool {
    matches!(entry.membership, Some(Membership::Join | Membership::Invite))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{KeyNid, Position};
    use sabha_federation::state_log::StateHashKey;

    proptest! {
        #[test]
        fn heroes_are_the_first_members_whatever_changes(
            steps in prop::collection::vec((0..12_i64, prop::option::weighted(0.95, 0..6_u8)), 0..80),
        ) {
            let mut state = StateLog::new(StateHashKey::new(&[7; 32]), Position::BEFORE_ALL);
            let mut heroes = Heroes::default();
            for ((key, code), number) in steps.into_iter().zip(1..) {
                // Code 0 is no membership: another key of the state.
                let event = code.map(|_| EventNid(number));
                let change = state.change(KeyNid(key), Position(number), event, code.and_then(Membership::from_code));
                state.apply(change);
                let old = heroes.clone();
                prop_assert_eq!(heroes.follow(&change, &state), heroes != old);
                let mut here: Vec<StateEntry> = state.iter().map(|(_, entry)| entry).filter(is_here).collect();
                here.sort_by_key(|entry| entry.pos);
                let expected: Vec<EventNid> = here.iter().take(KEPT).map(|entry| entry.event_nid).collect();
                prop_assert_eq!(heroes.events(), expected);
            }
        }
    }
}
