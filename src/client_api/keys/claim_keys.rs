//! `POST /_matrix/client/v3/keys/claim` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim

use axum::extract::State;
use ruma::api::client::keys::claim_keys::v3::{Request, Response};

use super::unreachable_server;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Hands out one-time keys, so that the caller can start talking to other devices.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let claimed = app.keys.claim(&request.one_time_keys).await?;
    let mut response = Response::new(claimed.keys);
    response.failures =
        claimed.unreachable.into_iter().map(|server| (server.to_string(), unreachable_server())).collect();
    Ok(Reply(response))
}
