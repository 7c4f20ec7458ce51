//! `GET /_matrix/client/v3/voip/turnServer` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver

use axum::extract::State;
use ruma::api::client::voip::get_turn_server_info::v3::Request;

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// An empty object, because this server has no TURN server. Other servers answer the same. Clients then ask again only
/// when they need one, but after an error they would retry every minute.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<RawJson, ApiError> {
    Ok(RawJson("{}".into()))
}
