//! Deleting checkpoints of rooms' states that are no longer worth their place.

use super::{Conn, Error, Position, RoomNid, Transaction, on, statements};

statements! {
    CHECKPOINTS_OF_ROOM = "SELECT pos, changes FROM state_checkpoint WHERE room_nid = $1 ORDER BY pos DESC LIMIT 1000";
    DELETE_CHECKPOINT = "DELETE FROM state_checkpoint WHERE room_nid = $1 AND pos = $2";
}

/// The newest thousand checkpoints of a room, newest first: their positions, and the numbers of changes before them.
pub(crate) async fn list(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<(Position, i64)>, Error> {
    let rows: Vec<(i64, i64)> =
        on!(conn, db => sqlx::query_as(CHECKPOINTS_OF_ROOM.text()).bind(room.0).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(pos, changes)| (Position(pos), changes)).collect())
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
