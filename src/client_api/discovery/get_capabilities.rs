//! `GET /_matrix/client/v3/capabilities` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities

use axum::extract::State;
use ruma::{
    RoomVersionId,
    api::client::discovery::get_capabilities::v3::{
        Capabilities, GetLoginTokenCapability, ProfileFieldsCapability, Request, RoomVersionStability,
        RoomVersionsCapability, ThirdPartyIdChangesCapability,
    },
};
use serde_json::json;

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// The room versions that can be created and joined.
const ROOM_VERSIONS: [RoomVersionId; 7] = [
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The capabilities that clients may offer to their users. Those left out, such as changing the display name, are
/// allowed by default.
pub(super) async fn handle(State(app): State<App>, _: Authed<Request>) -> Result<RawJson, ApiError> {
    let versions = ROOM_VERSIONS.map(|version| (version, RoomVersionStability::Stable));
    let mut capabilities = Capabilities::new();
    capabilities.room_versions = RoomVersionsCapability::new(app.config.rooms.default_version.clone(), versions.into());
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    capabilities.get_login_token = GetLoginTokenCapability::new(true);
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    let mut capabilities =
        serde_json::to_value(capabilities).expect("ruma's type has only texts as keys, and can always be written");
    // Ruma leaves out capabilities that are allowed by default, but clients look for this one.
    capabilities["m.change_password"] = json!({ "enabled": true });
    Ok(RawJson(json!({ "capabilities": capabilities }).to_string().into()))
}
