//! Deleting checkpoints of rooms' states that are no longer worth their place.

use super::{Conn, Error, Position, RoomNid, Transaction, on, statements};

statements! {
    CHECKPOINTS_OF_ROOM = "SELECT pos, changes, before IS NOT NULL FROM state_checkpoint WHERE room_nid = $1 \
        ORDER BY pos DESC LIMIT 1000";
    DELETE_CHECKPOINT = "DELETE FROM state_checkpoint WHERE room_nid = $1 AND pos = $2";
}

/// A checkpoint without its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) pos: Position,
    /// The number of changes before it.
    pub(crate) changes: i64,
    /// Set if it is a jump.
    pub(crate) is_jump: bool,
}

/// The newest thousand checkpoints of a room, newest first.
pub(crate) async fn list(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<Listed>, Error> {
    let rows: Vec<(i64, i64, bool)> =
        on!(conn, db => sqlx::query_as(CHECKPOINTS_OF_ROOM.text()).bind(room.0).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, changes, is_jump)| Listed { pos: Position(pos), changes, is_jump }).collect())
}

/// Deletes these checkpoints of a room.
pub(crate) struct DeleteCheckpoints {
    pub(crate) room: RoomNid,
    pub(crate) positions: Vec<Position>,
}

impl Transaction for DeleteCheckpoints {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        for pos in &self.positions {
            on!(conn, db => sqlx::query(DELETE_CHECKPOINT.text())
                .bind(self.room.0).bind(pos.0).execute(&mut **db).await.map(|_| ()))?;
        }
        Ok(())
    }
}
