//! Account data and presence in `/sync`.

use std::{collections::HashMap, sync::Arc};

use serde_json::value::RawValue;

use super::Look;
use crate::{
    room::Room,
    store::{Error, RoomNid},
    sync::{
        filter::{accepts_plain_type, accepts_room_type},
        json::Object,
    },
};

/// What changed in the user's account data, by room. Room 0 is the account's own.
pub(super) struct AccountDataNews {
    by_room: HashMap<RoomNid, Vec<(String, Box<RawValue>)>>,
}

/// The account's own data is stored as that of no room.
const NO_ROOM: RoomNid = RoomNid(0);

impl AccountDataNews {
    pub(super) async fn load(look: &Look<'_>) -> Result<Self, Error> {
        let mut by_room: HashMap<RoomNid, Vec<_>> = HashMap::new();
        let changed = look.app.account_data.list_since(look.caller.user.nid, look.since_pos(), look.upto).await?;
        for data in changed {
            by_room.entry(data.room).or_default().push((data.event_type, data.event));
        }
        Ok(Self { by_room })
    }

    /// Takes in all data of rooms that are new to the client: it was not told what changed before it knew the room.
    pub(super) async fn complete(&mut self, look: &Look<'_>, newly_joined: &[Arc<Room>]) -> Result<(), Error> {
        for room in newly_joined {
            let all = look.app.account_data.list_of_room(look.caller.user.nid, room.nid, look.upto).await?;
            self.by_room.insert(room.nid, all.into_iter().map(|data| (data.event_type, data.event)).collect());
        }
        Ok(())
    }

    /// Writes the account's own data; whether there was any.
    pub(super) async fn write_global(&self, look: &Look<'_>, object: &mut Object<'_>) -> Result<bool, Error> {
        let filter = &look.request.filter.account_data;
        let mut events: Vec<&RawValue> = Vec::new();
        let changed = self.by_room.get(&NO_ROOM).map(Vec::as_slice).unwrap_or_default();
        events.extend(changed.iter().filter(|(kind, _)| accepts_plain_type(filter, kind)).map(|(_, event)| &**event));
        // Everyone has push rules, also those who never changed them.
        let push_rules = if look.is_initial()
            && accepts_plain_type(filter, "m.push_rules")
            && !changed.iter().any(|(kind, _)| kind == "m.push_rules")
        {
            Some(look.app.push.ruleset_event(&look.caller.user).await?)
        } else {
            None
        };
        events.extend(push_rules.as_deref());
        if events.is_empty() {
            return Ok(false);
        }
        object.events("account_data", |array| events.iter().for_each(|event| array.raw(event.get())));
        Ok(true)
    }

    /// The data that belongs to a room.
    pub(super) fn of_room(&self, look: &Look<'_>, room: RoomNid) -> Vec<&RawValue> {
        let filter = &look.request.filter.room.account_data;
        let changed = self.by_room.get(&room).map(Vec::as_slice).unwrap_or_default();
        changed.iter().filter(|(kind, _)| accepts_room_type(filter, kind)).map(|(_, event)| &**event).collect()
    }
}

/// Writes the presence of others; whether there was any.
pub(super) async fn write_presence(look: &Look<'_>, object: &mut Object<'_>) -> Result<bool, Error> {
    if !accepts_plain_type(&look.request.filter.presence, "m.presence") {
        return Ok(false);
    }
    let Look { app, caller, .. } = look;
    let events = app
        .ephemeral
        .presence_since(&app.rooms, caller.user.nid, look.since_ephemeral(), look.ignored().await?)
        .await?;
    if events.is_empty() {
        return Ok(false);
    }
    object.events("presence", |array| events.iter().for_each(|event| array.raw(event.get())));
    Ok(true)
}
