//! `GET /_matrix/client/v1/register/m.login.registration_token/validity` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity

use axum::extract::State;
use ruma::api::client::account::check_registration_token_validity::v1::{Request, Response};

use super::registration_closed;
use crate::{
    app::App,
    config::RegistrationMode,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Returns whether an account can be registered with this token now.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    if app.accounts.registration_mode() == RegistrationMode::Closed {
        return Err(registration_closed());
    }
    Ok(Reply(Response::new(app.accounts.is_registration_token_valid(&request.token).await?)))
}
