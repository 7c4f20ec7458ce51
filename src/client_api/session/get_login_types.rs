//! `GET /_matrix/client/v3/login` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login

use axum::extract::State;
use ruma::api::client::session::get_login_types::v3::{
    ApplicationServiceLoginType, LoginType, PasswordLoginType, Request, Response, TokenLoginType,
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The supported login types.
pub(super) async fn handle(State(app): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    let mut token = TokenLoginType::new();
    token.get_login_token = true;
    let mut flows = vec![LoginType::Password(PasswordLoginType::new()), LoginType::Token(token)];
    if !app.appservices.is_empty() {
        flows.push(LoginType::ApplicationService(ApplicationServiceLoginType::new()));
    }
    Ok(Reply(Response::new(flows)))
}
