//! `GET /_matrix/federation/v1/query/directory` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory

use axum::extract::State;
use ruma::api::federation::query::get_room_information::v1::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The room that an alias of this server points to.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let room = app.rooms.find_alias(&request.room_alias).await?;
    let room = room.ok_or_else(|| ApiError::not_found("This server has no such alias."))?;
    Ok(Reply(Response::new(room.room_id.clone(), vec![app.rooms.server_name()])))
}
