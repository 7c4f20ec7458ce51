//! Aliases and the entry in the public directory ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-aliases

use std::{collections::HashSet, sync::Arc};

use ruma::{OwnedRoomAliasId, RoomAliasId, RoomId, events::StateEventType};
use sabha_federation::{EventDraft, state_log::Membership};
use serde::Deserialize;
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use super::{AppendError, send::SendError};
use crate::{
    account::LocalDevice,
    room::{Room, Rooms},
    store::{self, Conn, Position, RoomNid, Transaction, Write, aliases as rows, ids::lock, log::Touch},
};

/// Errors of creating or deleting an alias.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    #[error("{alias} is not an alias of this server")]
    Foreign { alias: OwnedRoomAliasId },
    #[error("{alias} is taken")]
    Taken { alias: OwnedRoomAliasId },
    #[error("{alias} does not exist")]
    Unknown { alias: OwnedRoomAliasId },
    #[error("this is for the alias's maker, and for those who may set the room's main alias")]
    NotAllowed,
    #[error("there is no such room")]
    UnknownRoom,
    #[error("the alias could not be stored")]
    Storage(#[from] store::Error),
}

/// An alias that nobody else can take until this is dropped.
pub(in crate::room) struct Reserved<'a> {
    rooms: &'a Rooms,
    pub(in crate::room) alias: OwnedRoomAliasId,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        lock(&self.rooms.reserved_aliases).remove(self.alias.as_str());
    }
}

impl Rooms {
    /// Reserves the alias, if it is free, until the result is dropped.
    pub(in crate::room) async fn reserve(&self, alias: &RoomAliasId) -> Result<Reserved<'_>, AliasError> {
        if alias.server_name() != self.signer.server_name() {
            return Err(AliasError::Foreign { alias: alias.to_owned() });
        }
        if !lock(&self.reserved_aliases).insert(alias.as_str().to_owned()) {
            return Err(AliasError::Taken { alias: alias.to_owned() });
        }
        let reserved = Reserved { rooms: self, alias: alias.to_owned() };
        match self.find_alias(alias).await? {
            Some(_) => Err(AliasError::Taken { alias: alias.to_owned() }),
            None => Ok(reserved),
        }
    }

    /// The room that a local alias points to.
    pub async fn find_alias(&self, alias: &RoomAliasId) -> Result<Option<Arc<Room>>, store::Error> {
        let mut reader = self.db.read().await?;
        let found = rows::find_alias(&mut reader.conn(), alias.as_str()).await?;
        drop(reader);
        match found {
            Some((room, _)) => Ok(Some(self.by_nid(room).await?)),
            None => Ok(None),
        }
    }

    /// Points a new alias to a room. The caller must be in the room.
    ///
    /// # Errors
    /// Fails if the alias is taken or not ours, or if the caller is not in the room.
    pub async fn create_alias(
        &self,
        caller: &LocalDevice,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), AliasError> {
        let room = self.find(room_id).await?.ok_or(AliasError::UnknownRoom)?;
        if self.membership(caller.user.nid, room.nid).await? != Some(Membership::Join) {
            return Err(AliasError::NotAllowed);
        }
        let reserved = self.reserve(alias).await?;
        let row = rows::AliasColumns {
            alias: alias.as_str().into(),
            room_nid: room.nid,
            creator_nid: caller.user.nid,
            created_at: self.clock.now_ms(),
        }
        .row();
        self.db.committer().write(Write::new(vec![row]).touching(Touch::Alias { room: room.nid })).await?;
        drop(reserved);
        Ok(())
    }

    /// Deletes an alias, and removes it from the room's `m.room.canonical_alias`. Allowed for its creator, for server
    /// admins, for its application service, and for members of the room who may set the room's main alias.
    ///
    /// # Errors
    /// Fails if there is no such alias, or if the caller may not delete it.
    pub async fn delete_alias(&self, caller: &LocalDevice, alias: &RoomAliasId) -> Result<(), AliasError> {
        let mut reader = self.db.read().await?;
        let found = rows::find_alias(&mut reader.conn(), alias.as_str()).await?;
        drop(reader);
        let (room, creator) = found.ok_or_else(|| AliasError::Unknown { alias: alias.to_owned() })?;
        let room = self.by_nid(room).await?;
        let covered = caller.appservice.as_ref().is_some_and(|appservice| appservice.covers_alias(alias));
        if creator != caller.user.nid && !caller.admin && !covered {
            let power_levels = self.power_levels(&room, self.db.committer().published()).await?;
            let joined = self.membership(caller.user.nid, room.nid).await? == Some(Membership::Join);
            if !joined || !power_levels.user_can_send_state(caller.user_id(), StateEventType::RoomCanonicalAlias) {
                return Err(AliasError::NotAllowed);
            }
        }
        self.db.committer().transact(DeleteAlias(alias.as_str().to_owned())).await?;
        self.drop_canonical_alias(caller, &room, alias).await
    }

    /// Removes a deleted alias from the room's `m.room.canonical_alias`, if the caller may change that. The alias is
    /// gone either way ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
    async fn drop_canonical_alias(
        &self,
        caller: &LocalDevice,
        room: &Arc<Room>,
        alias: &RoomAliasId,
    ) -> Result<(), AliasError> {
        let event_type = "m.room.canonical_alias";
        let mut writer = self.enter(room).await?;
        let current = writer.state(event_type, "").await?;
        let content = current.and_then(|event| serde_json::from_str::<Map<String, Value>>(event.content.get()).ok());
        let Some(mut content) = content else { return Ok(()) };
        let before = content.clone();
        content.retain(|key, value| key != "alias" || value != alias.as_str());
        if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
            others.retain(|other| other != alias.as_str());
            if others.is_empty() {
                content.remove("alt_aliases");
            }
        }
        if content == before {
            return Ok(());
        }
        let content = to_raw_value(&content).map_err(|error| store::Error::damaged("canonical alias", error))?;
        let draft =
            EventDraft { event_type: event_type.to_owned(), state_key: Some(String::new()), content, redacts: None };
        match writer.append(&caller.user, draft).await {
            Ok(_) => Ok(self.finish(writer, None).await?),
            Err(AppendError::Storage(error)) => Err(error.into()),
            Err(_) => Ok(()),
        }
    }

    /// The local aliases of a room.
    pub async fn aliases(&self, room: &Room) -> Result<Vec<OwnedRoomAliasId>, store::Error> {
        let mut reader = self.db.read().await?;
        let aliases = rows::aliases_of_room(&mut reader.conn(), room.nid).await?;
        Ok(aliases.into_iter().filter_map(|alias| RoomAliasId::parse(&alias).ok()).collect())
    }

    /// Returns whether the room is in the public directory.
    pub async fn is_published(&self, room: RoomNid) -> Result<bool, store::Error> {
        let mut reader = self.db.read().await?;
        rows::is_published(&mut reader.conn(), room).await
    }

    /// Adds the room to the public directory, or removes it.
    ///
    /// # Errors
    /// Fails if the caller is not a server admin and may not set the room's main alias.
    pub async fn publish(&self, caller: &LocalDevice, room_id: &RoomId, publish: bool) -> Result<(), AliasError> {
        let room = self.find(room_id).await?.ok_or(AliasError::UnknownRoom)?;
        if !caller.admin {
            let power_levels = self.power_levels(&room, self.db.committer().published()).await?;
            let joined = self.membership(caller.user.nid, room.nid).await? == Some(Membership::Join);
            if !joined || !power_levels.user_can_send_state(caller.user_id(), StateEventType::RoomCanonicalAlias) {
                return Err(AliasError::NotAllowed);
            }
        }
        if publish {
            let row = rows::PublishedColumns { room_nid: room.nid, published_at: self.clock.now_ms() }.row();
            self.db.committer().write(Write::new(vec![row]).touching(Touch::Directory { room: room.nid })).await?;
        } else {
            self.db.committer().transact(Unpublish(room.nid)).await?;
        }
        Ok(())
    }

    /// The rooms of the public directory, those with the most members first.
    pub async fn published_rooms(&self) -> Result<Vec<RoomNid>, store::Error> {
        let mut reader = self.db.read().await?;
        rows::published_rooms(&mut reader.conn()).await
    }

    /// Checks that the aliases that are new in an `m.room.canonical_alias` event point to the room.
    pub(in crate::room) async fn check_canonical_alias(
        &self,
        room: &Room,
        content: &RawValue,
    ) -> Result<(), SendError> {
        let new: CanonicalAlias = serde_json::from_str(content.get()).map_err(SendError::NoAliases)?;
        let current = self.current_state_event(room, "m.room.canonical_alias", "").await?;
        let known =
            current.and_then(|event| event.content::<CanonicalAlias>()).map(CanonicalAlias::all).unwrap_or_default();
        // Each alias costs a lookup, so duplicates are removed first.
        let known: HashSet<String> = known.into_iter().collect();
        let new: HashSet<String> = new.all().into_iter().filter(|alias| !known.contains(alias)).collect();
        for alias in new {
            let bad = || SendError::BadAlias { alias: alias.clone() };
            let parsed = RoomAliasId::parse(&alias).map_err(|_| bad())?;
            let points_to = self.find_alias(&parsed).await?;
            if points_to.is_none_or(|other| other.nid != room.nid) {
                return Err(bad());
            }
        }
        Ok(())
    }
}

/// The aliases that the content of an `m.room.canonical_alias` event names.
pub(in crate::room) fn aliases_in(content: &serde_json::Value) -> Result<Vec<String>, serde_json::Error> {
    CanonicalAlias::deserialize(content).map(CanonicalAlias::all)
}

#[derive(Default, Deserialize)]
struct CanonicalAlias {
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Vec<String>,
}

impl CanonicalAlias {
    fn all(self) -> Vec<String> {
        self.alias.into_iter().filter(|alias| !alias.is_empty()).chain(self.alt_aliases).collect()
    }
}

struct DeleteAlias(String);

impl Transaction for DeleteAlias {
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, store::Error> {
        rows::delete_alias(conn, &self.0).await
    }
}

struct Unpublish(RoomNid);

impl Transaction for Unpublish {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), store::Error> {
        rows::unpublish(conn, self.0).await
    }
}
