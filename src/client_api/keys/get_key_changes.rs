//! `GET /_matrix/client/v3/keys/changes` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges

use axum::extract::State;
use ruma::api::client::keys::get_key_changes::v3::{Request, Response};

use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
    sync::token::{InvalidToken, SyncToken},
};

/// Whose device lists changed between two syncs.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let bad_token = |error: InvalidToken| ApiError::invalid_param(error.to_string());
    let from: SyncToken = request.from.parse().map_err(bad_token)?;
    let to: SyncToken = request.to.parse().map_err(bad_token)?;
    let changed = app.keys.device_lists_changed(&app.rooms, caller.user.nid, from.position, to.position).await?;
    // Whom the caller no longer shares a room with is told by `/sync`.
    Ok(Reply(Response::new(changed, Vec::new())))
}
