//! `DELETE /_matrix/client/v3/directory/room/{roomAlias}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias

use axum::extract::State;
use ruma::api::client::alias::delete_alias::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Deletes an alias, also from the room's `m.room.canonical_alias`, if the caller may change that.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    // A server admin may clean up the aliases of an application service.
    let covered = caller.appservice.as_ref().is_some_and(|appservice| appservice.covers_alias(&request.room_alias));
    if !covered && !caller.admin {
        app.appservices.check_alias(&request.room_alias, None)?;
    }
    app.rooms.delete_alias(&caller, &request.room_alias).await?;
    Ok(Reply(Response::new()))
}
