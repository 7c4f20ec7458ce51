//! `POST /_matrix/client/v1/login/get_token` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token

use axum::extract::State;
use ruma::api::client::session::get_login_token::v1::{Request, Response};

use crate::{
    account::session::login::LOGIN_TOKEN_LIFETIME,
    app::App,
    client_api::uiaa::{self, Interactive},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// A token with which another device of the caller can log in, once.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Interactive(request), address, .. }: Authed<Interactive<Request>>,
) -> Result<Reply<Response>, ApiError> {
    uiaa::require_password(&app, &caller, "POST login/get_token", request.auth.as_ref(), address).await?;
    let token = app.accounts.create_login_token(&caller).await?;
    Ok(Reply(Response::new(LOGIN_TOKEN_LIFETIME, token)))
}
