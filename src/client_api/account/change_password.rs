//! `POST /_matrix/client/v3/account/password` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword

use axum::extract::State;
use ruma::api::client::account::change_password::v3::{Request, Response};
use zeroize::Zeroizing;

use super::signed_in;
use crate::{
    account::password::check_strength,
    app::App,
    client_api::uiaa::{self, Interactive},
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Gives the caller a new password, and signs their other devices out unless they ask to keep them.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Interactive(request), address, .. }: Authed<Interactive<Request>>,
) -> Result<Reply<Response>, ApiError> {
    let caller = signed_in(caller)?;
    check_strength(&request.new_password)?;
    uiaa::require_password(&app, &caller, "POST account/password", request.auth.as_ref(), address).await?;
    let password = Zeroizing::new(request.new_password);
    app.accounts.change_password(&caller, password, request.logout_devices).await?;
    Ok(Reply(Response::new()))
}
