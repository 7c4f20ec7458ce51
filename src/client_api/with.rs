//! Requests of ruma's with something that ruma does not keep: an event type as it was written, or the whole body.

use axum::http::StatusCode;
use ruma::api::{
    IncomingRequest, Metadata,
    error::{DeserializationError, ErrorKind},
};
use serde::de::Error as _;

use crate::http::{ApiError, NoBody};

/// Serves a request of our own at the endpoint of ruma's, with the same method, path and authentication.
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

/// What is read from a request beside its ruma type.
pub(super) trait Besides: Sized {
    /// Whether no body at all is an error. Usually it counts as an empty object.
    const NEEDS_BODY: bool = false;

    /// Reads it from the request and the arguments of its path, in the order of the path.
    ///
    /// # Errors
    /// When the body is not what it should be.
    fn read(request: &http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError>;
}

/// A request, and what was read besides.
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

/// A body that must be there: an empty one would replace what is stored with nothing.
pub(super) struct NeededBody;

impl Besides for NeededBody {
    const NEEDS_BODY: bool = true;

    fn read(_: &http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

/// The event type of a path that has it after the room, exactly as the client wrote it.
///
/// Ruma's enums spell some unstable types as their stable aliases. What a client sends under a type must be stored under
/// that type.
pub(super) struct ExactType(pub(super) String);

impl Besides for ExactType {
    fn read(_: &http::Request<&[u8]>, path_args: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self(path_args.get(1).copied().unwrap_or_default().to_owned()))
    }
}

/// The parameters that ask for an event to be sent later ([MSC4140]), and the name that the first will have.
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
    /// The type of an event that is sent now.
    ///
    /// # Errors
    /// An event for later is refused: sent at once, the leave that a client left behind for the end of a call would end it.
    pub(super) fn sent_now(self) -> Result<String, ApiError> {
        if self.is_delayed {
            let message = "This server does not support delayed events; nothing was sent.";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::Unrecognized, message));
        }
        Ok(self.event_type.0)
    }
}
