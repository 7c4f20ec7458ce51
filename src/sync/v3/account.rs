//! Account data and presence in `/sync`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ruma::UserId;
use serde_json::value::RawValue;

use super::Look;
use crate::{
    ephemeral::presence::PresenceSince,
    room::Room,
    store::{Error, RoomNid},
    sync::json::Object,
};

/// The changes of the user's account data, by room. Room 0 is the account's own.
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

    /// The rooms with changed data.
    pub(super) fn rooms(&self) -> impl Iterator<Item = RoomNid> {
        self.by_room.keys().copied().filter(|room| *room != NO_ROOM)
    }

    /// Returns the approximate bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.by_room.values().flatten().map(|(kind, event)| kind.len() + event.get().len()).sum()
    }

    /// Adds all data of rooms that are new to the client, which has not received earlier changes in them.
    pub(super) async fn complete(&mut self, look: &Look<'_>, newly_joined: &[Arc<Room>]) -> Result<(), Error> {
        for room in newly_joined {
            let all = look.app.account_data.list_of_room(look.caller.user.nid, room.nid, look.upto).await?;
            self.by_room.insert(room.nid, all.into_iter().map(|data| (data.event_type, data.event)).collect());
        }
        Ok(())
    }

    /// Writes the account's own data. Returns whether there was any.
    pub(super) async fn write_global(&self, look: &Look<'_>, object: &mut Object<'_>) -> Result<bool, Error> {
        let filter = &look.request.filter.account_data;
        let mut events: Vec<&RawValue> = Vec::new();
        let changed = self.by_room.get(&NO_ROOM).map(Vec::as_slice).unwrap_or_default();
        events.extend(
            changed.iter().filter(|(kind, event)| filter.accepts_unsent(kind, event)).map(|(_, event)| &**event),
        );
        // Every user has push rules, even without ever changing them.
        let push_rules = if look.is_initial()
            && filter.accepts_type("m.push_rules")
            && !changed.iter().any(|(kind, _)| kind == "m.push_rules")
        {
            Some(look.app.push.ruleset_event(&look.caller.user).await?)
        } else {
            None
        };
        events.extend(push_rules.as_deref().filter(|event| filter.accepts_unsent("m.push_rules", event)));
        if events.is_empty() {
            return Ok(false);
        }
        object.events("account_data", |array| events.iter().for_each(|event| array.raw(event.get())));
        Ok(true)
    }

    /// The account data of a room.
    pub(super) fn of_room(&self, look: &Look<'_>, room: &Room) -> Vec<&RawValue> {
        let filter = &look.request.filter.room.account_data;
        if !filter.accepts_room(&room.room_id) {
            return Vec::new();
        }
        let changed = self.by_room.get(&room.nid).map(Vec::as_slice).unwrap_or_default();
        changed.iter().filter(|(kind, event)| filter.accepts_unsent(kind, event)).map(|(_, event)| &**event).collect()
    }
}

/// Writes the presence of other users that changed, or that the client could not know: that of users whom the user just
/// `met` in a room. Returns whether there was any.
pub(super) async fn write_presence(
    look: &Look<'_>,
    met: &BTreeSet<String>,
    object: &mut Object<'_>,
) -> Result<bool, Error> {
    let filter = &look.request.filter.presence;
    if !filter.accepts_type("m.presence") {
        return Ok(false);
    }
    let Look { app, caller, .. } = look;
    let ignored = look.ignored().await?;
    let wanted = |user_id: &UserId| filter.accepts_sender(user_id) && !ignored.contains(user_id);
    let since = PresenceSince { number: look.since_ephemeral(), earlier_start: look.earlier_start(), met };
    let events = app.ephemeral.presence_since(&app.rooms, caller.user.nid, since, wanted).await?;
    if events.is_empty() {
        return Ok(false);
    }
    object.events("presence", |array| events.iter().for_each(|event| array.raw(event.get())));
    Ok(true)
}
