//! Asking again who somebody is: [`ruma::api::client::uiaa`], for the endpoints that want it.

use std::net::IpAddr;

use ruma::api::{
    client::uiaa::{AuthData, UiaaInfo},
    error::ErrorKind,
};

use crate::{
    account::{
        LocalDevice,
        interactive_auth::{Flow, InteractiveAuthError, PASSWORD, Passed},
    },
    app::App,
    http::{Action, ApiError, network},
};

/// Lets the request go on only if the caller has proven that they know their password. `operation` names what the request
/// would do, down to the device or key it is about: proof for one operation is none for another.
pub(super) async fn require_password(
    app: &App,
    caller: &LocalDevice,
    operation: &str,
    auth: Option<&AuthData>,
    address: Option<IpAddr>,
) -> Result<(), ApiError> {
    require(app, Some(caller), operation, PASSWORD, auth, address).await.map(drop)
}

/// The same where an application service needs no authentication: with its users' devices and cross-signing keys.
pub(super) async fn require_password_of_person(
    app: &App,
    caller: &LocalDevice,
    operation: &str,
    auth: Option<&AuthData>,
    address: Option<IpAddr>,
) -> Result<(), ApiError> {
    if caller.appservice.is_some() {
        return Ok(());
    }
    require_password(app, caller, operation, auth, address).await
}

/// The same with any flows, also for strangers.
pub(super) async fn require(
    app: &App,
    caller: Option<&LocalDevice>,
    operation: &str,
    flows: &[Flow],
    auth: Option<&AuthData>,
    address: Option<IpAddr>,
) -> Result<Passed, ApiError> {
    if !matches!(auth, Some(AuthData::Password(_))) {
        return Ok(app
            .accounts
            .authenticate_interactively(caller, operation, flows, auth, address.map(network))
            .await?);
    }
    // Guessing a password here is as fast as at the login, no faster.
    app.rate_limits.check(Action::Login, None, address)?;
    let guess = caller.map(|caller| app.rate_limits.guess(caller.user_id().as_str(), address)).transpose()?;
    let passed = app.accounts.authenticate_interactively(caller, operation, flows, auth, address.map(network)).await;
    if let Some(guess) = guess
        && !matches!(&passed, Err(InteractiveAuthError::Incomplete(info)) if is_refusal(info))
    {
        guess.give_back();
    }
    Ok(passed?)
}

/// Whether a password was compared and was wrong. Otherwise only something else is left to do.
fn is_refusal(info: &UiaaInfo) -> bool {
    info.auth_error.as_ref().is_some_and(|error| error.kind == ErrorKind::Forbidden)
}
