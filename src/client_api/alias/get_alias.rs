//! `GET /_matrix/client/v3/directory/room/{roomAlias}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directoryroomroomalias

use axum::extract::State;
use ruma::api::client::alias::get_alias::v3::{Request, Response};

use super::find;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The room that an alias points to; another server is asked for its own.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    if let Some(federation) = &app.federation
        && request.room_alias.server_name() != app.signer.server_name()
    {
        let (room_id, servers) = federation.resolve_alias(&request.room_alias).await?;
        return Ok(Reply(Response::new(room_id, servers)));
    }
    let room = find(&app, &request.room_alias).await?;
    Ok(Reply(Response::new(room.room_id.clone(), vec![app.rooms.server_name()])))
}
