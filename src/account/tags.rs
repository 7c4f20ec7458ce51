//! Tags of rooms, such as "favourite": the account data `m.tag` of a room, changed one tag at a time.

use ruma::events::tag::TagInfo;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::data::{AccountData, PutError};
use crate::store::{self, RoomNid, UserNid};

/// The type that tags are stored as.
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
        let turn = self.turn(user).await;
        self.update(&turn, room, TAG, |old| {
            let mut tags = parse(old);
            tags.insert(tag, info);
            content(tags).map(Some)
        })
        .await
    }

    /// Removes a tag. A tag that is not there stays away.
    pub async fn remove_tag(&self, user: UserNid, room: RoomNid, tag: &str) -> Result<(), PutError> {
        let turn = self.turn(user).await;
        self.update(&turn, room, TAG, |old| {
            let mut tags = parse(old);
            if tags.remove(tag).is_none() {
                return Ok(None);
            }
            content(tags).map(Some)
        })
        .await
    }
}

/// Clients may also write `m.tag` as a whole, and write nonsense; that counts as no tags.
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
