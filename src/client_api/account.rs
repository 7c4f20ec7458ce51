//! Accounts: [`ruma::api::client::account`].

mod change_password;
mod check_registration_token_validity;
mod deactivate;
mod get_3pids;
mod get_username_availability;
mod register;
mod whoami;

use std::sync::Arc;

use axum::http::StatusCode;
use ruma::api::error::ErrorKind;

use crate::{
    account::LocalDevice,
    endpoint::{Routes, WaitsFor},
    http::ApiError,
    limits::rate_limits::Action,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve_waiting(WaitsFor::Password, Action::Register, register::handle)
        .serve(Action::Register, get_username_availability::handle)
        .serve(Action::Register, check_registration_token_validity::handle)
        .serve(Action::Other, whoami::handle)
        .serve(Action::Other, get_3pids::handle)
        .serve_waiting(WaitsFor::Password, Action::Other, change_password::handle)
        .serve_waiting(WaitsFor::Password, Action::Other, deactivate::handle)
}

/// Requires a caller. The specification makes the access token of these endpoints optional only for proofs by e-mail,
/// which we do not support.
fn signed_in(caller: Option<Arc<LocalDevice>>) -> Result<Arc<LocalDevice>, ApiError> {
    let missing = || ApiError::new(StatusCode::UNAUTHORIZED, ErrorKind::MissingToken, "This needs an access token.");
    caller.ok_or_else(missing)
}

fn registration_closed() -> ApiError {
    ApiError::forbidden("Registration is closed on this server.")
}
