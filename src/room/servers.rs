//! The other servers that are in rooms, through their users.
//!
//! Promise: the rows follow the changes of the rooms' state, in the writes that make them. So a join that state resolution
//! takes back takes its server out again, also without an event of its own. This server is never among them.
//!
//! The sender to other servers, which is not here yet, will read them: an event goes to [`Rooms::servers_in`] its room, and a
//! user's device list to [`Rooms::servers_sharing_with`] the user. A server that was away while it got out of a room is sent the
//! event that took it out, by the row's `changed_pos`.

use std::collections::BTreeMap;

use ruma::{OwnedServerName, ServerName};
use sabha_federation::state_log::Membership;

use super::Rooms;
use crate::store::{Error, RoomNid, ServerNid, UserNid, remote_members as rows};

/// The number of joined users of each other server in one room, as of the room's head.
#[derive(Debug, Default)]
pub(super) struct JoinedByServer(BTreeMap<ServerNid, i64>);

impl JoinedByServer {
    /// Counts a user of the server who has joined, or is out of the room. Returns the new number.
    pub(super) fn count(&mut self, server: ServerNid, joined: bool) -> i64 {
        let count = self.0.entry(server).or_default();
        *count = (*count + if joined { 1 } else { -1 }).max(0);
        *count
    }
}

impl Rooms {
    /// The committed numbers of joined users of other servers in the room.
    pub(super) async fn joined_by_server(&self, room: RoomNid) -> Result<JoinedByServer, Error> {
        let mut reader = self.db.read().await?;
        let stored = rows::joined_by_server(&mut reader.conn(), room).await?;
        Ok(JoinedByServer(stored.into_iter().map(|(server, joined)| (ServerNid(server), joined)).collect()))
    }

    /// The other servers that have joined users in the room, in the order of their names.
    ///
    /// # Errors
    /// Database errors.
    pub async fn servers_in(&self, room: RoomNid) -> Result<Vec<OwnedServerName>, Error> {
        let mut reader = self.db.read().await?;
        rows::servers_in_room(&mut reader.conn(), room).await?.iter().map(|name| parse(name)).collect()
    }

    /// The other servers that share a room with the local user, in the order of their names: those that must hear of a
    /// change of the user's devices.
    ///
    /// # Errors
    /// Database errors.
    pub async fn servers_sharing_with(&self, user: UserNid) -> Result<Vec<OwnedServerName>, Error> {
        let mut reader = self.db.read().await?;
        let names = rows::servers_of_user(&mut reader.conn(), user, Membership::Join.code()).await?;
        names.iter().map(|name| parse(name)).collect()
    }
}

fn parse(name: &str) -> Result<OwnedServerName, Error> {
    ServerName::parse(name).map_err(|error| Error::damaged("server name", error))
}
