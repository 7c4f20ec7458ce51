//! Upgrading a room: a new room of another version takes the place of an old one ([spec]).
//!
//! Promise: while the old room is copied and closed, nobody else sends to it. The new room comes first. If the server
//! dies right after, the old room is as it was, and a retry makes another new room.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades

mod levels;

use std::sync::Arc;

use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, events::StateEventType};
use sabha_federation::{EventDraft, state_log::Membership};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    AppendError, RoomWriter,
    create::{CreateError, InitialState, NewRoom, Preset},
    send::SendError,
};
use crate::{
    account::LocalDevice,
    room::{Rooms, event::StoredEvent},
    store::{self, Conn, Position, RoomNid, Transaction, aliases as rows},
};

/// The state that the spec recommends to copy, except the power levels. Those come last, because until then the creator
/// may send everything.
const COPIED: [&str; 8] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
];

const POWER_LEVELS: &str = "m.room.power_levels";
const CANONICAL_ALIAS: &str = "m.room.canonical_alias";

/// The number of a space's rooms that are copied: each is an event that is signed while the client waits.
const MAX_CHILDREN: usize = 1000;

/// The number of bans that are copied: each is an event as well.
const MAX_BANS: usize = 1000;

/// A client's request to upgrade a room.
#[derive(Debug, Clone)]
pub struct Upgrade {
    pub version: RoomVersionId,
    /// The users who are as powerful as the caller in the new room. Only rooms of version 12 and newer have such users.
    pub additional_creators: Vec<OwnedUserId>,
}

/// Errors of upgrading a room.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("the caller may not replace the room")]
    NotAllowed,
    #[error("the new room was not created")]
    New(#[from] CreateError),
    #[error("the old room was not closed")]
    Old(#[from] SendError),
}

impl From<store::Error> for UpgradeError {
    fn from(error: store::Error) -> Self {
        Self::Old(error.into())
    }
}

impl Rooms {
    /// Creates the room's replacement and closes the room. Returns the ID of the new room.
    ///
    /// # Errors
    /// After [`UpgradeError::Old`] the new room may exist without the old one pointing to it.
    pub async fn upgrade(
        &self,
        caller: &LocalDevice,
        room_id: &RoomId,
        upgrade: Upgrade,
    ) -> Result<OwnedRoomId, UpgradeError> {
        let old = self.require(room_id).await?;
        let mut writer = self.enter(&old).await?;
        let joined = writer.membership(caller.user_id()).await? == Some(Membership::Join);
        let levels = writer.power_levels().await?;
        if !joined || !levels.user_can_send_state(caller.user_id(), StateEventType::RoomTombstone) {
            return Err(UpgradeError::NotAllowed);
        }
        let mut new = self.replacement(caller, &writer, upgrade).await?;
        let main_alias = writer.state(CANONICAL_ALIAS, "").await?.map(|event| event.content.clone());
        let new_id = match self.new_room_id(&new.rules()?) {
            // The create event of these versions names the last event of the old room, so that is built first.
            Some(chosen) => {
                let last = append_tombstone(&mut writer, caller, &chosen).await?;
                new.creation_content["predecessor"]["event_id"] = last.as_str().into();
                self.create_as(caller, new, Some(chosen)).await?
            }
            // In these versions the create event gives the new room its ID, which the last event of the old room names.
            None => {
                let made = self.create(caller, new).await?;
                append_tombstone(&mut writer, caller, &made).await?;
                made
            }
        };
        if main_alias.is_some() {
            append_if_allowed(&mut writer, caller, state(CANONICAL_ALIAS, &json!({}))).await?;
        }
        if let Some(quiet) = quiet_levels(&writer).await? {
            append_if_allowed(&mut writer, caller, state(POWER_LEVELS, &quiet)).await?;
        }
        self.finish(writer, None).await?;

        let moved = self.aliases(&old).await?;
        let new_room = self.require(&new_id).await?;
        while self.db.committer().transact(MoveAliases { from: old.nid, to: new_room.nid }).await? {}
        let content = main_alias.and_then(|content| serde_json::from_str::<Map<String, Value>>(content.get()).ok());
        if let Some(content) = content.and_then(|content| only(content, |alias| moved.iter().any(|it| it == alias))) {
            let sent = self.send_state(caller, &new_id, state(CANONICAL_ALIAS, &content)).await;
            if let Err(SendError::Storage(error) | SendError::Append(AppendError::Storage(error))) = sent {
                return Err(error.into());
            }
        }
        Ok(new_id)
    }

    async fn replacement(
        &self,
        caller: &LocalDevice,
        old: &RoomWriter<'_>,
        upgrade: Upgrade,
    ) -> Result<NewRoom, UpgradeError> {
        let rules = sabha_federation::rules(&upgrade.version)
            .ok_or_else(|| CreateError::UnsupportedVersion { version: upgrade.version.clone() })?;
        let create = old.state("m.room.create", "").await?;
        let create = create.ok_or_else(|| store::Error::damaged("room", "it has no m.room.create"))?;
        let mut content: Map<String, Value> = serde_json::from_str(create.content.get()).unwrap_or_default();
        let old_creators = levels::creators(&old.room.rules, &create.sender, &content);
        for of_the_old in ["creator", "room_version", "predecessor", "additional_creators"] {
            content.remove(of_the_old);
        }
        content.insert("predecessor".to_owned(), json!({ "room_id": old.room.room_id }));
        if rules.authorization.additional_room_creators && !upgrade.additional_creators.is_empty() {
            content.insert("additional_creators".to_owned(), json!(upgrade.additional_creators));
        }
        let new_creators = levels::creators(&rules, caller.user_id(), &content);

        let mut initial_state = Vec::new();
        for event_type in COPIED {
            match old.state(event_type, "").await? {
                Some(event) => initial_state.extend(copied(event_type, "", event.content.get())),
                // No such event means that guests stay out; a new room would let them in.
                None if event_type == "m.room.guest_access" => {
                    initial_state.extend(copied(event_type, "", r#"{"guest_access":"forbidden"}"#));
                }
                None => {}
            }
        }
        if content.get("type").is_some_and(|kind| kind == "m.space") {
            initial_state.extend(children(old).await?);
        }
        if let Some(event) = old.state(POWER_LEVELS, "").await? {
            let current = serde_json::from_str(event.content.get()).unwrap_or_default();
            let content = Value::Object(levels::carried_over(current, &old_creators, &new_creators));
            initial_state.push(InitialState { event_type: POWER_LEVELS.to_owned(), state_key: String::new(), content });
        }
        Ok(NewRoom {
            version: upgrade.version,
            preset: Preset::Private,
            creation_content: content,
            initial_state,
            power_level_override: Map::new(),
            name: None,
            topic: None,
            alias: None,
            invite: Vec::new(),
            bans: bans(old, &new_creators).await?,
            is_direct: false,
            publish: self.is_published(old.room.nid).await?,
        })
    }
}

/// The rooms that belong to a space.
async fn children(space: &RoomWriter<'_>) -> Result<Vec<InitialState>, store::Error> {
    let events = space.list_state(|entry| entry.membership.is_none()).await?;
    let children = events.iter().filter(|event| event.pdu.event_type == "m.space.child");
    // A child that was removed stays as an empty event.
    let there = children.filter(|event| event.content::<Map<String, Value>>().is_some_and(|child| !child.is_empty()));
    let copy = |event: &Arc<StoredEvent>| {
        copied("m.space.child", event.pdu.state_key.as_deref().unwrap_or_default(), event.pdu.content.get())
    };
    Ok(there.filter_map(copy).take(MAX_CHILDREN).collect())
}

/// The users who are banned from a room, with the reasons. The spec does not copy bans, but then users who were banned
/// from an open room would be back after its upgrade.
async fn bans(old: &RoomWriter<'_>, new_creators: &[OwnedUserId]) -> Result<Vec<(OwnedUserId, Value)>, store::Error> {
    let events = old.list_state(|entry| entry.membership == Some(Membership::Ban)).await?;
    let mut bans = Vec::new();
    for event in events {
        let user_id = event.pdu.state_key.as_deref().and_then(|user_id| OwnedUserId::try_from(user_id).ok());
        // Nobody stands above a creator, so creators cannot be banned.
        let Some(user_id) = user_id.filter(|user_id| !new_creators.contains(user_id)) else { continue };
        if bans.len() == MAX_BANS {
            tracing::warn!(room_id = %old.room.room_id, "only {MAX_BANS} bans are copied to the room's replacement");
            break;
        }
        let mut content = json!({ "membership": "ban" });
        if let Some(reason) = event.content::<Map<String, Value>>().and_then(|mut content| content.remove("reason")) {
            content["reason"] = reason;
        }
        bans.push((user_id, content));
    }
    Ok(bans)
}

async fn append_tombstone(
    writer: &mut RoomWriter<'_>,
    caller: &LocalDevice,
    replacement: &RoomId,
) -> Result<OwnedEventId, SendError> {
    let content = json!({ "body": "This room has been replaced", "replacement_room": replacement });
    Ok(writer.append(&caller.user, state("m.room.tombstone", &content)).await?)
}

fn copied(event_type: &str, state_key: &str, content: &str) -> Option<InitialState> {
    let content = serde_json::from_str(content).ok()?;
    Some(InitialState { event_type: event_type.to_owned(), state_key: state_key.to_owned(), content })
}

fn state(event_type: &str, content: &impl serde::Serialize) -> EventDraft {
    EventDraft {
        event_type: event_type.to_owned(),
        state_key: Some(String::new()),
        content: to_raw_value(content).expect("a JSON value serializes"),
        redacts: None,
    }
}

/// Appends an event that helps to close the old room but that the upgrade does not need: the caller may lack the power
/// for it.
async fn append_if_allowed(
    writer: &mut RoomWriter<'_>,
    caller: &LocalDevice,
    draft: EventDraft,
) -> Result<(), SendError> {
    match writer.append(&caller.user, draft).await {
        Ok(_) | Err(AppendError::NotAuthorized(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The power levels with which ordinary members of the old room can neither send messages nor invite ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
async fn quiet_levels(old: &RoomWriter<'_>) -> Result<Option<Map<String, Value>>, store::Error> {
    let Some(event) = old.state(POWER_LEVELS, "").await? else { return Ok(None) };
    let content = serde_json::from_str::<Map<String, Value>>(event.content.get()).unwrap_or_default();
    Ok(Some(levels::quiet(content)))
}

/// The content of a canonical alias event with only the wanted aliases; `None` if nothing is left.
fn only(content: Map<String, Value>, wanted: impl Fn(&str) -> bool) -> Option<Map<String, Value>> {
    let is_wanted = |alias: &Value| alias.as_str().is_some_and(&wanted);
    let mut left = Map::new();
    if let Some(alias) = content.get("alias").filter(|alias| is_wanted(alias)) {
        left.insert("alias".to_owned(), alias.clone());
    }
    if let Some(Value::Array(others)) = content.get("alt_aliases") {
        let others: Vec<_> = others.iter().filter(|alias| is_wanted(alias)).cloned().collect();
        if !others.is_empty() {
            left.insert("alt_aliases".to_owned(), others.into());
        }
    }
    (!left.is_empty()).then_some(left)
}

/// The number of aliases that are moved in one commit, which all other writers wait for.
const ALIASES_PER_COMMIT: i64 = 200;

/// Points aliases of one room to another, and removes the first room from the public directory.
struct MoveAliases {
    from: RoomNid,
    to: RoomNid,
}

impl Transaction for MoveAliases {
    /// `true` if there may be more.
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, store::Error> {
        let moved = rows::move_aliases(conn, self.from, self.to, ALIASES_PER_COMMIT).await?;
        rows::unpublish(conn, self.from).await?;
        Ok(moved == ALIASES_PER_COMMIT.unsigned_abs())
    }
}
