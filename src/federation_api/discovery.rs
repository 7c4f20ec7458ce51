//! The version and the keys of this server. Requests for them are not signed.

mod get_remote_server_keys;
mod get_remote_server_keys_batch;
mod get_server_keys;
mod get_server_version;

use std::collections::BTreeMap;

use ruma::{OwnedServerName, api::federation::discovery::ServerSigningKeys, serde::Raw};

use crate::{
    app::App,
    endpoint::Routes,
    http::ApiError,
    limits::rate_limits::Action,
    remote::{Federation, WantedAnswer},
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_remote_server_keys::handle)
        .serve(Action::Other, get_remote_server_keys_batch::handle)
        .serve(Action::Other, get_server_keys::handle)
        .serve(Action::Other, get_server_version::handle)
}

fn federation(app: &App) -> Result<&Federation, ApiError> {
    app.federation.as_ref().ok_or_else(ApiError::unrecognized)
}

/// The keys of these servers with our signature. For our own keys it serves both as their owner's and as a notary's.
async fn notary_answers(
    app: &App,
    wanted: BTreeMap<OwnedServerName, WantedAnswer>,
) -> Result<Vec<Raw<ServerSigningKeys>>, ApiError> {
    let federation = federation(app)?;
    let own = wanted.contains_key(app.signer.server_name()).then(|| federation.own_keys());
    let others = federation.keys_of_others(wanted).await?;
    Ok(own.into_iter().chain(others).map(Raw::from_json).collect())
}
