//! `GET /_matrix/client/v3/register/available` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable

use axum::extract::State;
use ruma::api::client::account::get_username_availability::v3::{Request, Response};

use super::registration_closed;
use crate::{
    app::App,
    config::RegistrationMode,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Returns whether a name can be registered now. Another request may still take it first.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    if app.accounts.registration_mode() == RegistrationMode::Closed {
        return Err(registration_closed());
    }
    app.accounts.check_available(&request.username).await?;
    Ok(Reply(Response::new(true)))
}
