//! `PUT /_matrix/client/v3/directory/room/{roomAlias}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias

use axum::extract::State;
use ruma::api::client::alias::create_alias::v3::{Request, Response};

use super::{check, check_exclusive};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Points a new alias to a room that the caller is in.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check(&request.room_alias)?;
    check_exclusive(&app, &caller, &request.room_alias)?;
    app.rooms.create_alias(&caller, &request.room_alias, &request.room_id).await?;
    Ok(Reply(Response::new()))
}
