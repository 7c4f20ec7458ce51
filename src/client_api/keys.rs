//! Keys for end-to-end encryption: [`ruma::api::client::keys`].

mod claim_keys;
mod get_key_changes;
mod get_keys;
mod upload_keys;
mod upload_signatures;
mod upload_signing_keys;

use axum::http::StatusCode;
use ruma::api::error::ErrorKind;
use serde_json::json;

use crate::{
    account::AuthenticateError,
    endpoint::{Routes, WaitsFor},
    http::ApiError,
    keys::{
        claim::ClaimError, cross_signing::SigningKeysError, query::QueryError, signatures::SignaturesError,
        upload::UploadError, validate::InvalidKeys,
    },
    limits::rate_limits::Action,
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, claim_keys::handle)
        .serve(Action::Other, get_key_changes::handle)
        .serve(Action::Other, get_keys::handle)
        .serve(Action::Other, upload_keys::handle)
        .serve(Action::Other, upload_signatures::handle)
        .serve_waiting(WaitsFor::Password, Action::Other, upload_signing_keys::handle)
}

/// The failure entry for a server that we cannot reach for its users' keys.
fn unreachable_server() -> serde_json::Value {
    json!({ "status": 503, "message": "This server could not be reached." })
}

/// The error `400 M_INVALID_SIGNATURE`, which ruma does not define.
fn invalid_signature(message: String) -> ApiError {
    let kind = serde_json::from_value(json!({ "errcode": "M_INVALID_SIGNATURE" })).unwrap_or(ErrorKind::InvalidParam);
    ApiError::new(StatusCode::BAD_REQUEST, kind, message)
}

impl From<InvalidKeys> for ApiError {
    fn from(error: InvalidKeys) -> Self {
        match error {
            InvalidKeys::TooLarge { .. } => Self::too_large(error.to_string()),
            InvalidKeys::TooMany { .. } | InvalidKeys::NotOwn | InvalidKeys::TwoFallbackKeys { .. } => {
                Self::invalid_param(error.to_string())
            }
            InvalidKeys::Malformed { .. } => Self::bad_json(error.to_string()),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::KeyChanged { .. } | UploadError::TooManyKeys { .. } | UploadError::TooManyAlgorithms => {
                Self::invalid_param(error.to_string())
            }
            UploadError::DeviceGone => AuthenticateError::Unknown.into(),
            UploadError::TooManyWaiting(error) => error.into(),
            UploadError::Storage(error) => error.into(),
        }
    }
}

impl From<ClaimError> for ApiError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::TooMany => Self::invalid_param(error.to_string()),
            ClaimError::Storage(error) => error.into(),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::TooMany => Self::invalid_param(error.to_string()),
            QueryError::TooLarge => Self::too_large(error.to_string()),
            QueryError::NoTurn(none) => none.into(),
            QueryError::Storage(error) => error.into(),
        }
    }
}

impl From<SigningKeysError> for ApiError {
    fn from(error: SigningKeysError) -> Self {
        match error {
            SigningKeysError::Malformed { .. } => Self::bad_json(error.to_string()),
            SigningKeysError::NotOwn(_) => Self::invalid_param(error.to_string()),
            SigningKeysError::NotSigned(_) => invalid_signature(error.to_string()),
            SigningKeysError::NoMasterKey => Self::missing_param(error.to_string()),
            SigningKeysError::SameAsDevice(_) | SigningKeysError::NeedsAuthentication => {
                Self::forbidden(error.to_string())
            }
            SigningKeysError::Storage(error) => error.into(),
        }
    }
}

impl From<SignaturesError> for ApiError {
    fn from(error: SignaturesError) -> Self {
        match error {
            SignaturesError::TooMany => Self::invalid_param(error.to_string()),
            SignaturesError::Storage(error) => error.into(),
        }
    }
}
