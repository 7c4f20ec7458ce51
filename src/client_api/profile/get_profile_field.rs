//! `GET /_matrix/client/v3/profile/{userId}/{keyName}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname

use axum::extract::State;
use ruma::api::client::profile::get_profile_field::v3::Request;
use serde_json::json;

use super::{elsewhere, unknown_profile};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// One field of a user's profile; for a user of another server, we ask that server.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let field = request.field.as_str();
    if let Some(federation) = elsewhere(&app, &request.user_id) {
        let found = federation.profile(&request.user_id, Some(field)).await?.pop();
        let (_, value) = found.ok_or_else(unknown_profile)?;
        return Ok(RawJson(json!({ field: value }).to_string().into()));
    }
    let value = app.accounts.find_profile_field(&request.user_id, field).await?.ok_or_else(unknown_profile)?;
    Ok(RawJson(json!({ field: value }).to_string().into()))
}
