//! `GET /_matrix/federation/v1/version` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version

use axum::extract::State;
use ruma::api::federation::discovery::get_server_version::v1::{Request, Response, Server};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Name and version of this implementation.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    let mut server = Server::new();
    server.name = Some("Sabha".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = Response::new();
    response.server = Some(server);
    Ok(Reply(response))
}
