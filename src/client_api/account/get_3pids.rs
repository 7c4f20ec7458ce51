//! `GET /_matrix/client/v3/account/3pid` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3account3pid

use axum::extract::State;
use ruma::api::client::account::get_3pids::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The e-mail addresses and telephone numbers of the caller: this server stores none, and says so in its capabilities.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    Ok(Reply(Response::new(Vec::new())))
}
