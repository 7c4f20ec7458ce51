//! `GET /_matrix/client/v3/room_keys/keys/{roomId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomid

use axum::{extract::State, response::Response};
use ruma::api::client::backup::get_backup_keys_for_room::v3::Request;

use super::pages::Pages;
use crate::{app::App, endpoint::Authed, http::ApiError, keys::backup::parse_version, store::key_backup::Part};

/// The room keys of one room.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Response, ApiError> {
    let version = parse_version(&request.version)?;
    Pages::new(app, caller.user.nid, version, Part::Room(request.room_id.to_string())).answer().await
}
