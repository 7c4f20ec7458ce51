//! Room aliases: [`ruma::api::client::alias`].

mod create_alias;
mod delete_alias;
mod get_alias;

use std::sync::Arc;

use ruma::{OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, RoomAliasId};

use crate::{
    account::LocalDevice, app::App, endpoint::Routes, http::ApiError, limits::rate_limits::Action, room::Room,
};

/// The maximum length of an alias with its sigil and server name, as the specification sets it.
const MAX_ALIAS_BYTES: usize = 255;

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::CreateRoom, create_alias::handle)
        .serve(Action::Other, delete_alias::handle)
        .serve(Action::Other, get_alias::handle)
}

/// The room that an alias points to.
///
/// # Errors
/// `M_NOT_FOUND`, also for every alias of another server.
async fn find(app: &App, alias: &RoomAliasId) -> Result<Arc<Room>, ApiError> {
    let found = app.rooms.find_alias(alias).await?;
    found.ok_or_else(|| ApiError::not_found(format!("This server knows no room with the alias {alias}.")))
}

/// The ID of a room that the client names by ID or by alias.
pub(super) async fn resolve(app: &App, room: OwnedRoomOrAliasId) -> Result<OwnedRoomId, ApiError> {
    match OwnedRoomId::try_from(room) {
        Ok(room_id) => Ok(room_id),
        Err(alias) => Ok(find(app, &alias).await?.room_id.clone()),
    }
}

/// The alias of this server with this name.
///
/// # Errors
/// `M_INVALID_PARAM` when there can be no such alias.
pub(super) fn local_alias(app: &App, name: &str) -> Result<OwnedRoomAliasId, ApiError> {
    if name.contains(':') {
        return Err(ApiError::invalid_param("The name of an alias has no colon."));
    }
    let alias = format!("#{name}:{}", app.rooms.server_name());
    let alias = RoomAliasId::parse(&alias).map_err(|error| ApiError::invalid_param(format!("{alias}: {error}.")))?;
    check(&alias)?;
    Ok(alias)
}

/// Refuses an alias that is reserved for another application service, or outside the caller's own namespaces if the
/// caller is one.
///
/// # Errors
/// `M_EXCLUSIVE`.
pub(super) fn check_exclusive(app: &App, caller: &LocalDevice, alias: &RoomAliasId) -> Result<(), ApiError> {
    Ok(app.appservices.check_alias(alias, caller.appservice.as_deref())?)
}

/// Checks the rules of the specification's grammar that the parser does not check.
fn check(alias: &RoomAliasId) -> Result<(), ApiError> {
    if alias.as_str().len() > MAX_ALIAS_BYTES {
        return Err(ApiError::invalid_param(format!("An alias has at most {MAX_ALIAS_BYTES} bytes.")));
    }
    if alias.alias().is_empty() || alias.alias().chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(ApiError::invalid_param("The name of an alias has no white space, and at least one letter."));
    }
    Ok(())
}
