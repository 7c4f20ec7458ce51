//! `GET /_matrix/client/v3/account/whoami` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami

use axum::extract::State;
use ruma::api::client::account::whoami::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Returns the user and device of the access token.
pub(super) async fn handle(
    State(_): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let mut response = Response::new(caller.user_id().to_owned(), false);
    response.device_id = caller.device_id.clone();
    Ok(Reply(response))
}
