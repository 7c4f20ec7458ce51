//! `POST /_matrix/client/v3/knock/{roomIdOrAlias}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias

use axum::extract::State;
use ruma::api::client::knock::knock_room::v3::{Request, Response};

use crate::{
    app::App,
    client_api::{alias::resolve, membership::unknown_room_is_not_found},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Asks to be let into a room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let room_id = resolve(&app, request.room_id_or_alias).await?;
    let profile = app.rooms.profile_of(caller.user.nid).await?;
    let knocked = app.rooms.knock(&caller, &room_id, &profile, request.reason.as_deref()).await;
    Ok(Reply(Response::new(knocked.map_err(unknown_room_is_not_found)?)))
}
