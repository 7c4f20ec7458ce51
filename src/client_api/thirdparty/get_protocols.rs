//! `GET /_matrix/client/v3/thirdparty/protocols` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::api::client::thirdparty::get_protocols::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The protocols of third-party networks. There are none, because application services are not asked yet; clients
/// request them whenever the user opens the room directory.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(BTreeMap::new())))
}
