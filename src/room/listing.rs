//! A room as lists and directories show it, read without loading the room.
//!
//! `room_head` holds it beside the base of the next event. A column changes with the event that changes it, in the row
//! that each write of the room has anyway: [`columns`] for the texts, [`heroes`] for the members that name a room.
//! Promise: the columns equal the events of the committed state, in their redacted form if they were redacted.

pub(super) mod columns;
pub(super) mod heroes;

use std::collections::HashMap;

use ruma::{OwnedRoomId, RoomId};

use super::{Room, Rooms};
use crate::store::{
    Error, EventNid, Position, RoomNid,
    ids::unpack,
    room_lists::{self as rows, ListedRow},
};

/// A room as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub nid: RoomNid,
    pub room_id: OwnedRoomId,
    /// The position of the latest event for which clients move the room up in a list.
    pub bump_pos: Position,
    /// The number of joined users.
    pub joined: i64,
    /// The number of invited users.
    pub invited: i64,
    pub name: Option<String>,
    pub topic: Option<String>,
    /// The `mxc:` address of the avatar, as the event has it.
    pub avatar: Option<String>,
    /// The main alias, as the event has it.
    pub alias: Option<String>,
    /// The algorithm with which the room is encrypted.
    pub encryption: Option<String>,
    pub room_type: Option<String>,
    pub join_rule: Option<String>,
    pub history: Option<String>,
    pub guests: Option<String>,
    /// False if users of other servers may never join.
    pub federates: bool,
    /// The member events of the first joined or invited users.
    pub heroes: Vec<EventNid>,
}

impl Listing {
    fn new(row: ListedRow) -> Result<Self, Error> {
        let text = |column: Option<String>| column.filter(|text| !text.is_empty());
        Ok(Self {
            nid: RoomNid(row.room_nid),
            room_id: RoomId::parse(&row.room_id).map_err(|error| Error::damaged("room ID", error))?,
            bump_pos: Position(row.bump_pos),
            joined: row.joined,
            invited: row.invited,
            name: text(row.name),
            topic: text(row.topic),
            avatar: text(row.avatar),
            alias: text(row.alias),
            encryption: text(row.encryption),
            room_type: text(row.room_type),
            join_rule: text(row.join_rule),
            history: text(row.history),
            guests: text(row.guests),
            federates: row.federates != Some(0),
            heroes: row.heroes.as_deref().map(unpack).transpose()?.unwrap_or_default(),
        })
    }
}

impl Rooms {
    /// The rooms as lists show them, in the order of `rooms`. Rooms that do not exist, or are damaged, are missing. Loads
    /// no room.
    ///
    /// # Errors
    /// Database errors only.
    pub async fn listings(&self, rooms: &[RoomNid]) -> Result<Vec<Listing>, Error> {
        let mut found = HashMap::with_capacity(rooms.len());
        let mut reader = self.db.read().await?;
        for row in rows::list(&mut reader.conn(), rooms).await? {
            let nid = RoomNid(row.room_nid);
            if let Some(listing) = self.contain(nid, Listing::new(row))? {
                found.insert(nid, listing);
            }
        }
        Ok(rooms.iter().filter_map(|room| found.remove(room)).collect())
    }
}

impl Room {
    /// The member events of the first joined or invited users as of `upto`, oldest first. `None` if the state has changed
    /// since.
    pub(crate) fn heroes(&self, upto: Position) -> Option<Vec<EventNid>> {
        let view = self.view();
        (view.state.latest() <= upto).then(|| view.heroes.events().to_vec())
    }
}
