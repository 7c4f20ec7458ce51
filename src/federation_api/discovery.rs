//! The version and the keys of this server. Requests for them are not signed.

mod get_remote_server_keys;
mod get_remote_server_keys_batch;
mod get_server_keys;
mod get_server_version;

use ruma::{api::federation::discovery::ServerSigningKeys, serde::Raw};

use crate::{app::App, endpoint::Routes, http::ApiError, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_remote_server_keys::handle)
        .serve(Action::Other, get_remote_server_keys_batch::handle)
        .serve(Action::Other, get_server_keys::handle)
        .serve(Action::Other, get_server_version::handle)
}

/// Our keys with our signature, which serves both as their owner's and as a notary's.
fn own_keys(app: &App) -> Result<Raw<ServerSigningKeys>, ApiError> {
    let federation = app.federation.as_ref().ok_or_else(ApiError::unrecognized)?;
    Ok(Raw::from_json(federation.own_keys()))
}
