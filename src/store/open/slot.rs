//! The writer's slot: taking the right to write.

use super::{DatabaseOptions, OpenError};
use crate::store::{
    Conn, Position,
    committer::{Role, new_term_number},
    conn::{on, statements},
    log::lease::{self, Taken},
    terms::Term,
};

statements! {
    NEW_SLOT = "INSERT INTO writer_slot (slot, epoch, pos, holder, beat) VALUES (0, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
    TAKE_SLOT = "UPDATE writer_slot SET epoch = epoch + 1, holder = $1 WHERE slot = 0 RETURNING epoch, pos";
}

/// The slot at the start of this process.
pub(super) struct SlotAtStart {
    /// The last committed position.
    pub(super) pos: Position,
    pub(super) lease: LeaseAtStart,
}

/// The right to write at the start of this process.
pub(super) enum LeaseAtStart {
    /// For this process alone.
    OurOwn(Taken),
    /// It was free, and others may follow.
    Taken(Taken),
    OfAnother,
}

/// Takes the right to write, in a shared database only if nobody has it.
pub(super) async fn take_slot(conn: &mut Conn<'_>, options: &DatabaseOptions) -> Result<SlotAtStart, OpenError> {
    on!(conn, db => sqlx::query(NEW_SLOT.text()).execute(&mut **db).await.map(|_| ()))?;
    let now_ms = options.clock.now_ms();
    if options.role == Role::Follow {
        let slot = lease::read(conn).await?;
        let taken = match slot.holder {
            lease::NOBODY => lease::take(conn, slot, new_term_number(), now_ms).await?,
            _ => None,
        };
        return Ok(SlotAtStart { pos: slot.pos, lease: taken.map_or(LeaseAtStart::OfAnother, LeaseAtStart::Taken) });
    }
    let number = options.incarnation;
    let (epoch, pos): (i64, i64) =
        on!(conn, db => sqlx::query_as(TAKE_SLOT.text()).bind(number).fetch_one(&mut **db).await)?;
    let term = Term { number, epoch, after: Position(pos) };
    Ok(SlotAtStart { pos: term.after, lease: LeaseAtStart::OurOwn(lease::begin(conn, term, now_ms).await?) })
}
