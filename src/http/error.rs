//! The error answer to a failed request: a status code and the Matrix error that the spec names.

use std::time::Duration;

use axum::{
    body::Body,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use ruma::api::{
    OutgoingResponseExt as _,
    client::uiaa::{UiaaInfo, UiaaResponse},
    error::{
        Error as MatrixError, ErrorBody, ErrorKind, LimitExceededErrorData, RetryAfter, StandardErrorBody,
        UnknownTokenErrorData,
    },
};

use crate::{
    account::AuthenticateError, limit_exceeded::LimitExceeded, remote::FederationError, report::Report, store,
};

/// A failed request, ready to be sent.
#[derive(Debug)]
pub struct ApiError {
    kind: Kind,
    /// The time after which a retry is worthwhile, if known.
    retry_after: Option<Duration>,
}

/// The retry time after the server was busy: our queues are short, or full for only seconds.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The retry time after the database was away: most databases are back by then.
const DATABASE_RETRY: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Kind {
    Matrix(Box<MatrixError>),
    InteractiveAuth(Box<UiaaInfo>),
}

impl ApiError {
    pub fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        let body = ErrorBody::Standard(StandardErrorBody::new(kind, message.into()));
        Self { kind: Kind::Matrix(Box::new(MatrixError::new(status, body))), retry_after: None }
    }

    /// `403 M_FORBIDDEN`: the request is understood, but refused.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorKind::Forbidden, message)
    }

    /// `401 M_UNAUTHORIZED`: another server's request is not authenticated.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, ErrorKind::Unauthorized, message)
    }

    /// `404 M_NOT_FOUND`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
    }

    /// `400 M_INVALID_PARAM`: a parameter has an invalid value.
    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::InvalidParam, message)
    }

    /// `400 M_MISSING_PARAM`.
    pub fn missing_param(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::MissingParam, message)
    }

    /// `400 M_BAD_JSON`: valid JSON, but not what this endpoint expects.
    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::BadJson, message)
    }

    /// `413 M_TOO_LARGE`.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, ErrorKind::TooLarge, message)
    }

    /// `404 M_UNRECOGNIZED`: there is no such endpoint.
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorKind::Unrecognized, "This server does not know that endpoint.")
    }

    /// `405 M_UNRECOGNIZED`: the endpoint exists, but not with this method.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::Unrecognized,
            "That endpoint does not take this HTTP method.",
        )
    }

    /// `429 M_LIMIT_EXCEEDED`, to be retried after `wait`.
    pub fn limit_exceeded(wait: Duration) -> Self {
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(wait));
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, ErrorKind::LimitExceeded(data), "Too many requests.");
        Self { retry_after: Some(wait), ..error }
    }

    /// `503 M_UNKNOWN`: the server cannot handle the request at the moment.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unknown, message);
        Self { retry_after: Some(BUSY_RETRY), ..error }
    }

    /// `503 M_UNKNOWN`: the database does not answer.
    pub fn database_away(message: impl Into<String>) -> Self {
        Self { retry_after: Some(DATABASE_RETRY), ..Self::unavailable(message) }
    }

    /// `500 M_UNKNOWN`. The cause is logged here; the client learns nothing of it.
    pub fn internal(error: impl std::error::Error) -> Self {
        tracing::error!(error = %Report(&error), "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorKind::Unknown, "The server failed. Please try again later.")
    }

    /// `401` with the stages that are left of interactive authentication.
    pub fn interactive_auth(info: UiaaInfo) -> Self {
        Self { kind: Kind::InteractiveAuth(Box::new(info)), retry_after: None }
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Overloaded | store::Error::Stopping | store::Error::Superseded | store::Error::NotLeader => {
                Self::unavailable("The server is busy or restarting. Please try again.")
            }
            store::Error::Unavailable(_) | store::Error::Waiting => {
                tracing::warn!(error = %Report(&error), "request not answered");
                Self::database_away("The server cannot reach its database. Please try again.")
            }
            store::Error::DiskFull(_) => {
                tracing::warn!(error = %Report(&error), "request not carried out");
                let error = Self::new(
                    StatusCode::INSUFFICIENT_STORAGE,
                    ErrorKind::Unknown,
                    "The server's disk is full: nothing can be stored until its operator makes room.",
                );
                Self { retry_after: Some(DATABASE_RETRY), ..error }
            }
            store::Error::HoldsNul => Self::bad_json("A text holds a NUL character."),
            store::Error::Database(_) | store::Error::Panicked | store::Error::Damaged { .. } => Self::internal(error),
        }
    }
}

/// The error for the client when a request to another server failed.
impl From<LimitExceeded> for ApiError {
    fn from(LimitExceeded { wait }: LimitExceeded) -> Self {
        Self::limit_exceeded(wait)
    }
}

impl From<FederationError> for ApiError {
    fn from(error: FederationError) -> Self {
        match &error {
            FederationError::Refused { status, .. } if *status == StatusCode::NOT_FOUND => {
                Self::not_found(format!("{error}: it does not know this."))
            }
            FederationError::Refused { status, .. } if *status == StatusCode::FORBIDDEN => {
                Self::forbidden(format!("{error}: it does not tell."))
            }
            FederationError::Busy { .. } => Self::unavailable(format!("{error}. Please try again.")),
            FederationError::Unreachable { .. }
            | FederationError::Refused { .. }
            | FederationError::Malformed { .. }
            | FederationError::Request => {
                tracing::debug!(error = %Report(&error), "another server was no help");
                // Without the cause: clients must not learn which of our addresses is denied, or what listens on it.
                Self::new(StatusCode::BAD_GATEWAY, ErrorKind::Unknown, format!("{error}."))
            }
        }
    }
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        let unknown_token = |soft_logout| {
            let mut data = UnknownTokenErrorData::new();
            data.soft_logout = soft_logout;
            Self::new(StatusCode::UNAUTHORIZED, ErrorKind::UnknownToken(data), error.to_string())
        };
        match error {
            AuthenticateError::Unknown => unknown_token(false),
            AuthenticateError::Expired => unknown_token(true),
            AuthenticateError::Storage(error) => error.into(),
        }
    }
}

/// Adds the empty list of completed stages, which ruma leaves out. The spec's examples have it in every answer, and
/// some clients need it.
fn with_nothing_completed(body: Vec<u8>) -> Vec<u8> {
    match body.strip_prefix(b"{") {
        Some(rest) => [br#"{"completed":[],"#, rest].concat(),
        None => body,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let response = match self.kind {
            Kind::Matrix(error) => error.try_into_http_response::<Vec<u8>>(),
            Kind::InteractiveAuth(info) => {
                let has_completed = !info.completed.is_empty();
                UiaaResponse::AuthResponse(*info)
                    .try_into_http_response::<Vec<u8>>()
                    .map(|response| if has_completed { response } else { response.map(with_nothing_completed) })
            }
        };
        let mut response = match response {
            Ok(response) => response.map(Body::from),
            Err(error) => {
                tracing::error!(%error, "an error could not be written");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        };
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, whole_seconds(wait).into());
        }
        response
    }
}

/// Rounds up to whole seconds for the header. Rounded down, a client would retry too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn a_client_is_never_told_to_come_back_too_early() {
        let check = |wait_ms: u64, expected: &str| {
            let response = ApiError::limit_exceeded(Duration::from_millis(wait_ms)).into_response();
            assert_eq!(response.headers().get_all(RETRY_AFTER).iter().collect::<Vec<_>>(), [expected], "{wait_ms} ms");
        };
        check(1, "1");
        check(495, "1");
        check(1000, "1");
        check(1001, "2");
        check(59_999, "60");
    }

    #[tokio::test]
    async fn a_database_that_fails_is_told_by_what_helps() {
        let cause = || Arc::new(sqlx::Error::Io(io::Error::from(io::ErrorKind::ConnectionRefused)));
        let cases = [
            (store::Error::Unavailable(cause()), StatusCode::SERVICE_UNAVAILABLE, "database"),
            (store::Error::Waiting, StatusCode::SERVICE_UNAVAILABLE, "database"),
            (store::Error::Stopping, StatusCode::SERVICE_UNAVAILABLE, "again"),
            (store::Error::NotLeader, StatusCode::SERVICE_UNAVAILABLE, "again"),
            (store::Error::DiskFull(cause()), StatusCode::INSUFFICIENT_STORAGE, "disk is full"),
            (store::Error::Database(cause()), StatusCode::INTERNAL_SERVER_ERROR, "again"),
            (store::Error::Panicked, StatusCode::INTERNAL_SERVER_ERROR, "again"),
        ];
        for (error, status, says) in cases {
            let text = error.to_string();
            let response = ApiError::from(error).into_response();
            assert_eq!(response.status(), status, "{text}");
            let comes_back = response.headers().contains_key(RETRY_AFTER);
            assert_eq!(comes_back, status != StatusCode::INTERNAL_SERVER_ERROR, "{text}");
            let body = response.into_body().collect().await.expect("a whole body").to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!(body["errcode"], "M_UNKNOWN", "{text}");
            assert!(body["error"].as_str().is_some_and(|error| error.contains(says)), "{text}: {body}");
        }
    }
}
