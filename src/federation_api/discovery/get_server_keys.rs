//! `GET /_matrix/key/v2/server` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server

use axum::extract::State;
use ruma::{
    api::federation::discovery::get_server_keys::v2::{Request, Response},
    serde::Raw,
};

use super::federation;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The signing keys of this server, signed with those in use.
pub(super) async fn handle(State(app): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(Raw::from_json(federation(&app)?.own_keys()))))
}
