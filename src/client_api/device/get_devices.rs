//! `GET /_matrix/client/v3/devices` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices

use axum::extract::State;
use ruma::api::client::device::get_devices::v3::Request;
use serde_json::{Value as JsonValue, json};

use super::described;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// All devices of the caller.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let devices = app.accounts.list_devices(caller.user.nid).await?;
    let devices: Vec<JsonValue> = devices.iter().map(described).collect();
    Ok(RawJson(json!({ "devices": devices }).to_string().into()))
}
