//! Tags of rooms, such as "favourite": the account data `m.tag` of a room, changed one tag at a time. Tags and the list
//! of direct chats are copied from a room to its replacement.

use ruma::{RoomId, events::tag::TagInfo};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{ACCOUNT, AccountData, DIRECT, PutError};
use crate::store::{self, RoomNid, UserNid};

/// The type of account data that holds tags.
const TAG: &str = "m.tag";

/// The spec's limit on a tag's name.
pub const MAX_TAG_BYTES: usize = 255;

impl AccountData {
    /// The room's tags by name.
    pub async fn tags(&self, user: UserNid, room: RoomNid) -> Result<Map<String, Value>, store::Error> {
        Ok(parse(self.find(user, room, TAG).await?.as_deref()))
    }

    /// Adds a tag, or replaces it.
    pub async fn set_tag(&self, user: UserNid, room: RoomNid, tag: String, info: &TagInfo) -> Result<(), PutError> {
        if tag.len() > MAX_TAG_BYTES {
            return Err(PutError::BadType);
        }
        let info = serde_json::to_value(info).map_err(|error| store::Error::damaged("tag", error))?;
        let turn = self.turn(user).await?;
        self.update(&turn, room, TAG, |old| {
            let mut tags = parse(old);
            tags.insert(tag, info);
            content(tags).map(Some)
        })
        .await
    }

    /// Removes a tag. Removing a missing tag succeeds.
    pub async fn remove_tag(&self, user: UserNid, room: RoomNid, tag: &str) -> Result<(), PutError> {
        let turn = self.turn(user).await?;
        self.update(&turn, room, TAG, |old| {
            let mut tags = parse(old);
            if tags.remove(tag).is_none() {
                return Ok(None);
            }
            content(tags).map(Some)
        })
        .await
    }

    /// Copies the tags of room `old` to room `new`. Tags that `new` already has stay as they are.
    pub async fn carry_tags_over(&self, user: UserNid, old: RoomNid, new: RoomNid) -> Result<(), PutError> {
        let turn = self.turn_always(user).await;
        let carried = self.tags(user, old).await?;
        self.update(&turn, new, TAG, |now| {
            let mut tags = parse(now);
            let before = tags.len();
            for (tag, info) in carried {
                tags.entry(tag).or_insert(info);
            }
            if tags.len() == before {
                return Ok(None);
            }
            content(tags).map(Some)
        })
        .await
    }

    /// Lists room `new` as a direct chat with the users for whom `old` is one.
    pub async fn carry_direct_over(&self, user: UserNid, old: &RoomId, new: &RoomId) -> Result<(), PutError> {
        let turn = self.turn_always(user).await;
        self.update(&turn, ACCOUNT, DIRECT, |now| {
            let rooms = now.and_then(|now| serde_json::from_str::<Map<String, Value>>(now.get()).ok());
            let Some(mut rooms) = rooms else { return Ok(None) };
            let mut changed = false;
            for rooms in rooms.values_mut().filter_map(Value::as_array_mut) {
                if rooms.iter().any(|room| room == old.as_str()) && !rooms.iter().any(|room| room == new.as_str()) {
                    rooms.push(new.as_str().into());
                    changed = true;
                }
            }
            if !changed {
                return Ok(None);
            }
            Ok(Some(to_raw_value(&rooms).map_err(|error| store::Error::damaged("direct chats", error))?))
        })
        .await
    }
}

/// Reads the tags. Clients may also write `m.tag` as a whole; malformed content counts as no tags.
fn parse(content: Option<&RawValue>) -> Map<String, Value> {
    let content = content.and_then(|content| serde_json::from_str::<Map<String, Value>>(content.get()).ok());
    match content.and_then(|mut content| content.remove("tags")) {
        Some(Value::Object(tags)) => tags,
        _ => Map::new(),
    }
}

fn content(tags: Map<String, Value>) -> Result<Box<RawValue>, PutError> {
    Ok(to_raw_value(&json!({ "tags": tags })).map_err(|error| store::Error::damaged("tags", error))?)
}
