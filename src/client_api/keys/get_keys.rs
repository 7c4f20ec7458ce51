//! `POST /_matrix/client/v3/keys/query` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery

use axum::extract::State;
use ruma::api::client::keys::get_keys::v3::{Request, Response};

use super::unreachable_server;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The keys of users and their devices.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let queried = app.keys.query(&caller.user, &request.device_keys, &app.large_answers).await?;
    let _turn = queried.turn;
    let mut response = Response::new();
    response.device_keys = queried.device_keys;
    response.master_keys = queried.master_keys;
    response.self_signing_keys = queried.self_signing_keys;
    response.user_signing_keys = queried.user_signing_keys;
    response.failures =
        queried.unreachable.into_iter().map(|server| (server.to_string(), unreachable_server())).collect();
    Ok(Reply(response))
}
