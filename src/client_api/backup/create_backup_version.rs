//! `POST /_matrix/client/v3/room_keys/version` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion

use axum::extract::State;
use ruma::api::client::backup::create_backup_version::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::backup::Algorithm,
};

/// Creates a version, which becomes the current one.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let number = app.keys.create_backup(caller.user.nid, Algorithm::check(&request.algorithm)?).await?;
    Ok(Reply(Response::new(number.to_string())))
}
