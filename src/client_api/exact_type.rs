//! Requests whose path names an event type, with the type exactly as the client wrote it.
//!
//! Ruma's enums of event types spell some unstable types as their stable aliases. What a client sends under a type must
//! be stored under that type, so it is taken from the path as it is.

use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};

/// Where the event type is among the arguments of every such path: after the room.
const EVENT_TYPE: usize = 1;

/// A request of ruma's, and the event type of its path.
pub(super) struct ExactType<R> {
    pub(super) event_type: String,
    pub(super) request: R,
}

impl<R: Metadata> Metadata for ExactType<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for ExactType<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let event_type = path_args.get(EVENT_TYPE).copied().unwrap_or_default().to_owned();
        Ok(Self { event_type, request: R::try_from_http_request_inner(request, path_args)? })
    }
}
