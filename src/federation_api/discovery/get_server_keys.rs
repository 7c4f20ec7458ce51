//! `GET /_matrix/key/v2/server` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server

use axum::extract::State;
use ruma::api::federation::discovery::get_server_keys::v2::{Request, Response};

use super::own_keys;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The signing key of this server, signed with itself.
pub(super) async fn handle(State(app): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(own_keys(&app)?)))
}
