//! `POST /_matrix/client/v3/refresh` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh

use axum::extract::State;
use ruma::api::client::session::refresh_token::v3::{Request, Response};

use crate::{
    account::AuthenticateError,
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    limits::rate_limits::Action,
};

/// Exchanges a refresh token for the next pair of tokens.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, address, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let refreshed = app.accounts.refresh(&request.refresh_token).await;
    if matches!(refreshed, Err(AuthenticateError::Unknown)) {
        // This is a guess, or a client that keeps retrying an old token, so it is rate-limited like a wrong password.
        app.rate_limits.check(Action::Login, None, address)?;
    }
    let secrets = refreshed?;
    let mut response = Response::new(secrets.access_token);
    response.refresh_token = secrets.refresh_token;
    response.expires_in_ms = secrets.expires_in;
    Ok(Reply(response))
}
