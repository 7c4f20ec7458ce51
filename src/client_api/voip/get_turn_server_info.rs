//! `GET /_matrix/client/v3/voip/turnServer` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver

use axum::extract::State;
use ruma::api::client::voip::get_turn_server_info::v3::Request;

use crate::{
    app::App,
    http::{ApiError, Authed, RawJson},
};

/// An empty object: this server knows of no TURN server. Other servers say it so, and clients that are told ask again only
/// when they need it; an error they repeat every minute.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<RawJson, ApiError> {
    Ok(RawJson("{}".into()))
}
