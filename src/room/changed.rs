//! The rooms of a user that changed while nobody watched.

use super::{Rooms, state_log::Membership};
use crate::store::{Error, Position, RoomNid, UserNid, changed_rooms};

impl Rooms {
    /// The rooms of the user with news in the database after `since`: all of those that a look at every room would find,
    /// and perhaps some more. It finds no account data, and nothing that is only in memory.
    pub async fn changed_since(&self, user: UserNid, since: Position) -> Result<Vec<RoomNid>, Error> {
        let mut reader = self.db.read().await?;
        let joined = Membership::Join.code();
        let changed = changed_rooms::changed_rooms(&mut reader.conn(), user, since, joined).await?;
        Ok(changed.into_iter().map(|(room, _)| room).collect())
    }
}
