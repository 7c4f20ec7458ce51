//! `GET /_matrix/client/v3/room_keys/keys` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys

use axum::{extract::State, response::Response};
use ruma::api::client::backup::get_backup_keys::v3::Request;

use super::pages::Pages;
use crate::{app::App, endpoint::Authed, http::ApiError, keys::backup::parse_version, store::key_backup::Part};

/// All room keys of a version.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Response, ApiError> {
    let version = parse_version(&request.version)?;
    Pages::new(app, caller.user.nid, version, Part::All).answer().await
}
