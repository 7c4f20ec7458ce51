//! `GET /_matrix/client/v3/pushers` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushers

use axum::extract::State;
use ruma::api::client::push::get_pushers::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The caller's pushers. There are none, because none can be set yet; clients request them whenever the user opens the
/// settings.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(vec![])))
}
