//! Requests that name a room version. A text that cannot be a room version gets the same error as an unknown version;
//! ruma alone would report it as bad JSON.

use std::marker::PhantomData;

use axum::http::StatusCode;
use ruma::{
    RoomVersionId,
    api::{IncomingRequest, Metadata, error::DeserializationError, error::ErrorKind},
};
use serde_json::{Map, Value};

use crate::{client_api::with::same_endpoint, http::ApiError};

/// The field in which a request names the version.
pub(super) trait Field {
    const NAME: &str;
}

/// `room_version` of `POST createRoom`.
pub(super) struct RoomVersion;

impl Field for RoomVersion {
    const NAME: &str = "room_version";
}

/// `new_version` of `POST rooms/{roomId}/upgrade`.
pub(super) struct NewVersion;

impl Field for NewVersion {
    const NAME: &str = "new_version";
}

/// A request, or the invalid text that it has as its room version.
pub(super) struct Versioned<F, R> {
    request: Result<R, String>,
    field: PhantomData<F>,
}

impl<F, R> Versioned<F, R> {
    /// Returns the request.
    ///
    /// # Errors
    /// `M_UNSUPPORTED_ROOM_VERSION`.
    pub(super) fn known(self) -> Result<R, ApiError> {
        self.request.map_err(|version| unsupported(&version))
    }
}

/// The answer to a version that this server does not have.
pub(in crate::client_api) fn unsupported(version: &str) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        ErrorKind::UnsupportedRoomVersion,
        format!("This server does not support room version {version:?}."),
    )
}

same_endpoint!([F, R: Metadata] Versioned<F, R> as R);

impl<F: Field, R: IncomingRequest> IncomingRequest for Versioned<F, R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        // Ruma refuses a body that is not an object.
        let body = serde_json::from_slice::<Map<String, Value>>(request.body()).unwrap_or_default();
        let request = match body.get(F::NAME) {
            Some(Value::String(version)) if RoomVersionId::try_from(version.as_str()).is_err() => Err(version.clone()),
            _ => Ok(R::try_from_http_request_inner(request, path_args)?),
        };
        Ok(Self { request, field: PhantomData })
    }
}
