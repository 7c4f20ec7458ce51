//! The stored states of rooms, from which loading starts: how far apart they are, and which of them stay.
//!
//! Every change of state is in the log for ever, so a checkpoint only saves time: reading a state starts from the newest
//! checkpoint before it and replays the changes after that. A missing one makes a reader replay more. A reader that has read
//! one needs nothing but the log afterwards, so a checkpoint can be deleted at any time. Only the checkpoints of jumps stay for
//! ever: the log has no changes for them.
//!
//! Nearly all reads are of the newest state, or of one a little before it. So the newest two stay, and further back one for
//! each doubling of the distance: what is read from long ago costs in proportion to how long ago it was.

use std::{collections::HashSet, sync::Mutex};

use super::Rooms;
use crate::store::{
    Error, Position, RoomNid,
    checkpoints::{self as rows, DeleteCheckpoints, Listed},
    ids::lock,
};

/// The smallest number of changes between two checkpoints. Replaying as many takes less than a millisecond.
const MIN_DISTANCE: i64 = 256;

/// The part of a room's entries that must have changed before the next checkpoint, as a divisor. A checkpoint has all
/// entries, so each change pays for writing eight of them; loading replays an eighth of what it reads anyway.
const DISTANCE_DIVISOR: i64 = 8;

/// The number of rooms that wait to be thinned. Above it, a room is thinned after a later checkpoint.
const MAX_WAITING: usize = 10_000;

/// The number of checkpoints that are deleted in one commit. One of a large room has half a megabyte.
const DELETED_AT_ONCE: usize = 16;

/// Returns the number of changes after which a state of this size is stored again.
pub(super) fn distance(entries: usize) -> i64 {
    (i64::try_from(entries).unwrap_or(i64::MAX) / DISTANCE_DIVISOR).max(MIN_DISTANCE)
}

/// The rooms with new checkpoints since the last sweep. A restart forgets them; their next checkpoint brings them back.
#[derive(Debug, Default)]
pub(super) struct Unthinned(Mutex<HashSet<RoomNid>>);

impl Unthinned {
    /// Notes that the room gets another checkpoint.
    pub(super) fn add(&self, room: RoomNid) {
        let mut rooms = lock(&self.0);
        if rooms.len() < MAX_WAITING {
            rooms.insert(room);
        }
    }

    fn take(&self) -> HashSet<RoomNid> {
        std::mem::take(&mut lock(&self.0))
    }
}

impl Rooms {
    /// Deletes checkpoints that are not worth their place, of the rooms that have got new ones since the last call.
    ///
    /// # Errors
    /// Database errors; a room that was not reached is thinned after its next checkpoint.
    pub async fn thin_checkpoints(&self) -> Result<(), Error> {
        for room in self.unthinned.take() {
            let mut reader = self.db.read().await?;
            let checkpoints = rows::list(&mut reader.conn(), room).await?;
            drop(reader);
            for positions in superfluous(&checkpoints).chunks(DELETED_AT_ONCE) {
                let positions = positions.to_vec();
                self.db.committer().transact(DeleteCheckpoints { room, positions }).await?;
            }
        }
        Ok(())
    }
}

/// The checkpoints that may go, of a room's checkpoints, newest first.
///
/// One goes if its neighbours are then no further apart than the younger of them is from the newest checkpoint. So a
/// state that is `n` changes old costs at most `n` more to read than it did, and of three neighbours that stay, the
/// oldest is at least twice as old as the youngest. A jump never goes.
fn superfluous(checkpoints: &[Listed]) -> Vec<Position> {
    let [newest, second, older @ ..] = checkpoints else { return Vec::new() };
    let mut superfluous = Vec::new();
    let mut younger = second;
    for pair in older.windows(2) {
        let [checkpoint, next] = pair else { continue };
        if !checkpoint.is_jump && younger.changes - next.changes <= newest.changes - younger.changes {
            superfluous.push(checkpoint.pos);
        } else {
            younger = checkpoint;
        }
    }
    superfluous
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn large_states_are_stored_less_often() {
        let check = |entries: usize, expected: i64| assert_eq!(distance(entries), expected, "{entries} entries");
        check(0, 256);
        check(2_048, 256);
        check(2_056, 257);
        check(50_000, 6_250);
    }

    fn check(ages: &[i64], expected: &[i64]) {
        check_with_jumps(ages, &[], expected);
    }

    fn check_with_jumps(ages: &[i64], jumps: &[i64], expected: &[i64]) {
        let listed =
            |age: &i64| Listed { pos: Position(1_000_000 - age), changes: 100_000 - age, is_jump: jumps.contains(age) };
        let checkpoints: Vec<_> = ages.iter().map(listed).collect();
        let kept: Vec<i64> = left(&checkpoints).iter().map(|listed| 100_000 - listed.changes).collect();
        assert_eq!(kept, expected, "{ages:?}, jumps {jumps:?}");
    }

    fn left(checkpoints: &[Listed]) -> Vec<Listed> {
        let gone = superfluous(checkpoints);
        checkpoints.iter().copied().filter(|listed| !gone.contains(&listed.pos)).collect()
    }

    #[test]
    fn the_newest_two_stay_and_then_one_for_each_doubling() {
        check(&[], &[]);
        check(&[0], &[0]);
        check(&[0, 1, 2], &[0, 1, 2]);
        check(&[0, 1, 2, 3], &[0, 1, 2, 3]);
        check(&[0, 1, 2, 3, 4], &[0, 1, 2, 4]);
        check(&(0..=20).collect::<Vec<_>>(), &[0, 1, 2, 4, 8, 16, 20]);
        check(&[0, 1_000, 1_001, 1_002, 1_003], &[0, 1_000, 1_003]);
    }

    #[test]
    fn a_jump_stays_however_close_its_neighbours_are() {
        check_with_jumps(&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]);
        check_with_jumps(&[0, 1_000, 1_001, 1_002, 1_003], &[1_001], &[0, 1_000, 1_001, 1_003]);
        check_with_jumps(&[0, 1_000, 1_001, 1_002, 1_003], &[1_001, 1_002], &[0, 1_000, 1_001, 1_002, 1_003]);
        // A checkpoint beside it goes as if any other stayed.
        check_with_jumps(&(0..=20).collect::<Vec<_>>(), &[10, 11], &[0, 1, 2, 4, 8, 10, 11, 20]);
    }

    proptest! {
        /// A room gets checkpoints one after the other, and is thinned now and then.
        #[test]
        fn no_state_becomes_dear_to_read_and_few_checkpoints_stay(
            steps in prop::collection::vec((1..50_i64, any::<bool>(), prop::bool::weighted(0.1)), 1..80),
        ) {
            let mut all: Vec<Listed> = Vec::new();
            let mut stored: Vec<Listed> = Vec::new();
            for (distance, thin, is_jump) in steps {
                let changes = all.first().map_or(0, |listed| listed.changes) + distance;
                let listed = Listed { pos: Position(changes * 3), changes, is_jump };
                all.insert(0, listed);
                stored.insert(0, listed);
                if !thin {
                    continue;
                }
                stored = left(&stored);
                prop_assert_eq!(left(&stored), stored.clone(), "nothing more goes");
                prop_assert_eq!(&stored[..stored.len().min(2)], &all[..all.len().min(2)]);
                prop_assert_eq!(stored.last(), all.last());
                let jumps: Vec<_> = all.iter().filter(|listed| listed.is_jump).collect();
                prop_assert!(jumps.iter().all(|jump| stored.contains(jump)));
                // Each jump keeps itself, and up to two more for being their neighbour.
                let bound = 2 * usize::try_from(changes.ilog2()).expect("small") + 4 + 3 * jumps.len();
                prop_assert!(stored.len() <= bound, "{} of {changes} changes", stored.len());
                // A read costs least just after a checkpoint, and most just before the next one.
                for state in all.iter().flat_map(|listed| [listed.changes, listed.changes - 1]) {
                    let replayed = |checkpoints: &[Listed]| {
                        let found = checkpoints.iter().find(|listed| listed.changes <= state);
                        found.map(|listed| state - listed.changes)
                    };
                    let (cost, best) = (replayed(&stored), replayed(&all));
                    prop_assert_eq!(cost.is_some(), best.is_some());
                    prop_assert!(cost.unwrap_or_default() <= best.unwrap_or_default().max(changes - state));
                }
            }
        }
    }
}
