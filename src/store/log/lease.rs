//! The lease: the right to write, which one of several processes has. It is the row of `writer_slot`.
//!
//! Promise: what its holder commits under a condition on the epoch comes before all that the next holder commits. A process
//! takes the lease when nobody has it, or when it has seen nothing of the holder for a while, by its own clock: no two
//! clocks are compared. If that was wrong, the old holder fails at its next commit, and loses nothing that it has answered.

use std::time::Duration;

use super::trim;
use crate::store::{
    Conn, Error, Position,
    committer::RESERVE_IDS,
    conn::{Link, at_writer, statements},
    ids::{BLOCK, Kind},
    terms::{self, Term},
};

statements! {
    NEW_COUNTER = "INSERT INTO counter (name, next) VALUES ($1, 1) ON CONFLICT DO NOTHING";
    READ_SLOT = "SELECT epoch, pos, holder, beat FROM writer_slot WHERE slot = 0";
    /// Changes nothing if the slot has moved since it was read. Waits for a commit that is moving it.
    TAKE = "UPDATE writer_slot SET epoch = epoch + 1, holder = $1 \
        WHERE slot = 0 AND epoch = $2 AND pos = $3 AND beat = $4 RETURNING epoch";
    FIND_POSITION = "SELECT pos FROM writer_slot WHERE slot = 0 AND epoch = $1";
    BEAT = "UPDATE writer_slot SET beat = beat + 1 WHERE slot = 0 AND epoch = $1 RETURNING beat";
    HAND_OVER = "UPDATE writer_slot SET holder = 0 WHERE slot = 0 AND epoch = $1";
}

/// The holder of a lease that is free.
pub(in crate::store) const NOBODY: i64 = 0;

/// The slot as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct SlotRow {
    pub(in crate::store) epoch: i64,
    /// The last committed position.
    pub(in crate::store) pos: Position,
    pub(in crate::store) holder: i64,
    /// Raised by a holder that has nothing to commit.
    pub(in crate::store) beat: i64,
}

/// A lease that was taken.
#[derive(Debug)]
pub(in crate::store) struct Taken {
    pub(in crate::store) term: Term,
    /// A block of each kind of short id, by its start.
    pub(in crate::store) blocks: Vec<(Kind, i64)>,
}

pub(in crate::store) async fn read(conn: &mut Conn<'_>) -> Result<SlotRow, Error> {
    let row: Option<(i64, i64, i64, i64)> =
        at_writer!(conn, db => sqlx::query_as(READ_SLOT.text()).fetch_optional(&mut **db).await)?;
    let (epoch, pos, holder, beat) = row.ok_or_else(|| Error::damaged("writer_slot", "no row"))?;
    Ok(SlotRow { epoch, pos: Position(pos), holder, beat })
}

/// Takes the lease for the term that is named `number`, if the slot is still as it was seen. After an error, it may be
/// taken or not, and the connection must be given up.
pub(in crate::store) async fn take(
    conn: &mut Conn<'_>,
    seen: SlotRow,
    number: i64,
    now_ms: i64,
) -> Result<Option<Taken>, Error> {
    at_writer!(conn, db => sqlx::query("BEGIN").execute(&mut **db).await.map(drop))?;
    let taken: Option<(i64,)> = at_writer!(conn, db => sqlx::query_as(TAKE.text())
        .bind(number).bind(seen.epoch).bind(seen.pos.0).bind(seen.beat).fetch_optional(&mut **db).await)?;
    let Some((epoch,)) = taken else {
        at_writer!(conn, db => sqlx::query("ROLLBACK").execute(&mut **db).await.map(drop))?;
        return Ok(None);
    };
    let taken = begin(conn, Term { number, epoch, after: seen.pos }, now_ms).await?;
    at_writer!(conn, db => sqlx::query("COMMIT").execute(&mut **db).await.map(drop))?;
    Ok(Some(taken))
}

/// Begins a term whose slot was just taken, in the same transaction if others share the database.
pub(in crate::store) async fn begin(conn: &mut Conn<'_>, term: Term, now_ms: i64) -> Result<Taken, Error> {
    trim::delete_after(conn, term.after).await?;
    terms::begin(conn, term, now_ms).await?;
    Ok(Taken { term, blocks: reserve_ids(conn).await? })
}

/// Reserves a block of each kind of short id. Blocks of an earlier holder are never used up.
async fn reserve_ids(conn: &mut Conn<'_>) -> Result<Vec<(Kind, i64)>, Error> {
    let mut blocks = Vec::with_capacity(Kind::ALL.len());
    for kind in Kind::ALL {
        let name = kind.counter_name();
        at_writer!(conn, db => sqlx::query(NEW_COUNTER.text()).bind(name).execute(&mut **db).await.map(drop))?;
        let (end,): (i64,) = at_writer!(conn, db => sqlx::query_as(RESERVE_IDS.text())
            .bind(BLOCK).bind(name).fetch_one(&mut **db).await)?;
        blocks.push((kind, end - BLOCK));
    }
    Ok(blocks)
}

/// The slot's position, if the lease is still the one of this epoch. Not counted as a statement: an idle process asks all
/// the time, and tests count what requests cost.
pub(in crate::store) async fn find_position(conn: &mut Conn<'_>, epoch: i64) -> Result<Option<Position>, Error> {
    let found: Option<(i64,)> = match &mut conn.link {
        Link::Sqlite(db) => sqlx::query_as(FIND_POSITION.text()).bind(epoch).fetch_optional(&mut **db).await,
        Link::Postgres(db) => sqlx::query_as(FIND_POSITION.text()).bind(epoch).fetch_optional(&mut **db).await,
    }?;
    Ok(found.map(|(pos,)| Position(pos)))
}

/// Shows the others that the holder is there. Returns whether the lease is still the one of this epoch.
pub(in crate::store) async fn beat(conn: &mut Conn<'_>, epoch: i64) -> Result<bool, Error> {
    let beat: Option<(i64,)> =
        at_writer!(conn, db => sqlx::query_as(BEAT.text()).bind(epoch).fetch_optional(&mut **db).await)?;
    Ok(beat.is_some())
}

/// Gives the lease up: the next process that looks takes it. Changes nothing if it is another's already.
pub(in crate::store) async fn hand_over(conn: &mut Conn<'_>, epoch: i64) -> Result<(), Error> {
    Ok(at_writer!(conn, db => sqlx::query(HAND_OVER.text()).bind(epoch).execute(&mut **db).await.map(drop))?)
}

/// The sight that a process that follows has of the holder.
#[derive(Debug)]
pub(in crate::store) struct LeaseWatch {
    silence: Duration,
    /// The slot, and the time since which it stands like this, by our own clock.
    seen: Option<(SlotRow, Duration)>,
    /// The epoch with which this process gave the lease up: others take it first.
    given_up: Option<i64>,
}

impl LeaseWatch {
    /// A watch that takes a holder for gone after it was silent for this time.
    pub(in crate::store) fn new(silence: Duration, given_up: Option<i64>) -> Self {
        Self { silence, seen: None, given_up }
    }

    /// Notes the slot as it was read at `now`. Returns whether the lease may be taken.
    pub(in crate::store) fn may_take(&mut self, slot: SlotRow, now: Duration) -> bool {
        let since = match self.seen {
            Some((seen, since)) if seen == slot => since,
            _ => {
                self.seen = Some((slot, now));
                now
            }
        };
        let is_free = slot.holder == NOBODY && self.given_up != Some(slot.epoch);
        is_free || now.saturating_sub(since) >= self.silence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(5);
    const SLOT: SlotRow = SlotRow { epoch: 3, pos: Position(10), holder: 7, beat: 2 };

    /// Looks at the slot at these times, and returns what the watch says each time.
    fn say(given_up: Option<i64>, looks: &[(u64, SlotRow)]) -> Vec<bool> {
        let mut watch = LeaseWatch::new(SILENCE, given_up);
        looks.iter().map(|(seconds, slot)| watch.may_take(*slot, Duration::from_secs(*seconds))).collect()
    }

    #[test]
    fn a_holder_is_gone_when_neither_number_has_moved_for_a_while() {
        let moved = [
            SlotRow { pos: Position(11), ..SLOT },
            SlotRow { beat: 3, ..SLOT },
            SlotRow { epoch: 4, ..SLOT },
            SlotRow { epoch: 4, holder: 8, ..SLOT },
        ];
        for moved in moved {
            let looks = [(100, SLOT), (104, SLOT), (104, moved), (108, moved), (109, moved)];
            assert_eq!(say(None, &looks), [false, false, false, false, true], "{moved:?}");
        }
        // The time before the first look does not count: nobody has seen the holder then.
        assert_eq!(say(None, &[(1_000_000, SLOT)]), [false]);
    }

    #[test]
    fn a_lease_that_was_handed_over_is_taken_at_once_by_others() {
        let free = SlotRow { holder: NOBODY, ..SLOT };
        assert_eq!(say(None, &[(100, SLOT), (101, free)]), [false, true]);
        assert_eq!(
            say(Some(3), &[(100, free), (104, free), (105, free)]),
            [false, false, true],
            "nobody else was there"
        );
        // It has been another's meanwhile, whether this process has seen that or not.
        let free_again = SlotRow { epoch: 4, ..free };
        assert_eq!(say(Some(3), &[(100, free), (101, free_again)]), [false, true]);
    }
}
