//! `GET /_matrix/client/v3/joined_rooms` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms

use axum::extract::State;
use ruma::api::client::membership::joined_rooms::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The rooms that the caller is in.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(app.rooms.joined_room_ids(caller.user.nid).await?)))
}
