//! Ruma's requests with data that ruma does not keep: an event type as the client wrote it, or the whole body.

use axum::http::StatusCode;
use ruma::api::{
    IncomingRequest, Metadata,
    error::{DeserializationError, ErrorKind},
};
use serde::de::Error as _;

use crate::{endpoint::NoBody, http::ApiError};

/// Serves our own request type at the endpoint of ruma's, with the same method, path and authentication.
macro_rules! same_endpoint {
    ([$($generics:tt)*] $ours:ty as $ruma:ty) => {
        impl<$($generics)*> ruma::api::Metadata for $ours {
            const METHOD: http::Method = <$ruma as ruma::api::Metadata>::METHOD;
            const RATE_LIMITED: bool = <$ruma as ruma::api::Metadata>::RATE_LIMITED;
            type Authentication = <$ruma as ruma::api::Metadata>::Authentication;
            type PathBuilder = <$ruma as ruma::api::Metadata>::PathBuilder;
            const PATH_BUILDER: Self::PathBuilder = <$ruma as ruma::api::Metadata>::PATH_BUILDER;
        }
    };
    ($ours:ty as $ruma:ty) => {
        $crate::client_api::with::same_endpoint!([] $ours as $ruma);
    };
}
pub(super) use same_endpoint;

/// Data that is read from a request in addition to its ruma type.
pub(super) trait Besides: Sized {
    /// True if a missing body is an error. By default it counts as an empty object.
    const NEEDS_BODY: bool = false;

    /// Reads the data from the request and the arguments of its path, in the order of the path.
    ///
    /// # Errors
    /// If the body is invalid.
    fn read(request: &http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError>;
}

/// A request with its additional data.
pub(super) struct With<B, R> {
    pub(super) besides: B,
    pub(super) request: R,
}

same_endpoint!([B, R: Metadata] With<B, R> as R);

impl<B: Besides, R: IncomingRequest> IncomingRequest for With<B, R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        if B::NEEDS_BODY && request.extensions().get::<NoBody>().is_some() {
            return Err(serde_json::Error::custom("the body is missing").into());
        }
        let besides = B::read(&request, path_args)?;
        Ok(Self { besides, request: R::try_from_http_request_inner(request, path_args)? })
    }
}

/// A required body: an empty one would erase the stored value.
pub(super) struct NeededBody;

impl Besides for NeededBody {
    const NEEDS_BODY: bool = true;

    fn read(_: &http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

/// The event type that follows the room in the path, exactly as the client wrote it.
///
/// Ruma's enums replace some unstable types with their stable aliases. An event must be stored under the type that the
/// client sent.
pub(super) struct ExactType(pub(super) String);

impl Besides for ExactType {
    fn read(_: &http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self(path_args.get(1).copied().unwrap_or_default().to_owned()))
    }
}

/// The parameters of delayed events ([MSC4140]). The first is the future stable name of the second.
///
/// [MSC4140]: https://github.com/matrix-org/matrix-spec-proposals/pull/4140
const DELAYS: [&str; 3] = ["delay", "org.matrix.msc4140.delay", "org.matrix.msc4140.parent_delay_id"];

/// The type of an event that a client sends, exactly as it wrote it, and whether the event is to be sent later.
pub(super) struct NewEvent {
    event_type: ExactType,
    is_delayed: bool,
}

impl Besides for NewEvent {
    const NEEDS_BODY: bool = true;

    fn read(request: &http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError> {
        let query = request.uri().query().unwrap_or_default();
        let is_delayed = url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| DELAYS.contains(&&*name));
        Ok(Self { event_type: ExactType::read(request, path_args)?, is_delayed })
    }
}

impl NewEvent {
    /// Returns the type of an event that is to be sent now.
    ///
    /// # Errors
    /// A delayed event is refused. A client schedules its leave from a call this way; sent at once, the leave would end
    /// the call.
    pub(super) fn sent_now(self) -> Result<String, ApiError> {
        if self.is_delayed {
            let message = "This server does not support delayed events; nothing was sent.";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::Unrecognized, message));
        }
        Ok(self.event_type.0)
    }
}
