//! `GET /_matrix/client/v3/room_keys/version` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion

use axum::extract::State;
use ruma::{
    api::client::backup::get_latest_backup_info::v3::{Request, Response},
    serde::Raw,
};

use super::count;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The algorithm, key count and etag of the current version.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let version = app.keys.latest_backup(caller.user.nid).await?;
    Ok(Reply(Response::new(
        Raw::from_json(version.algorithm),
        count(version.count),
        version.etag.to_string(),
        version.number.to_string(),
    )))
}
