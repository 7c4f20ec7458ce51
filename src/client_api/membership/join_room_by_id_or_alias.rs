//! `POST /_matrix/client/v3/join/{roomIdOrAlias}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias

use axum::extract::State;
use ruma::api::client::membership::join_room_by_id_or_alias::v3::{Request, Response};

use super::{unknown_room_is_not_found, with_content::Content};
use crate::{
    app::App,
    client_api::alias::resolve,
    client_api::with::With,
    endpoint::Authed,
    http::{ApiError, Reply},
    use_cases::joining,
};

/// Joins a room by its ID or an alias. Joining again changes nothing.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<With<Content, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let With { besides: Content(content), request } = request;
    let room_id = resolve(&app, request.room_id_or_alias).await?;
    let member = (request.reason.as_deref(), &content);
    joining::join(&app, &caller, &room_id, member).await.map_err(unknown_room_is_not_found)?;
    Ok(Reply(Response::new(room_id)))
}
