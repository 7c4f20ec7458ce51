//! Requests to join, with what else the client wants its member event to hold.
//!
//! The specification names only `reason` and `third_party_signed` and is silent about other keys. Clients that send them
//! mean them for the member event, as with other servers, where anyone may set them with `PUT …/state/m.room.member` anyway.

use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde_json::{Map, Value};

/// A request of ruma's, and its whole body.
pub(super) struct WithContent<R> {
    pub(super) content: Map<String, Value>,
    pub(super) request: R,
}

impl<R: Metadata> Metadata for WithContent<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

impl<R: IncomingRequest> IncomingRequest for WithContent<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let content = serde_json::from_slice(request.body())?;
        Ok(Self { content, request: R::try_from_http_request_inner(request, path_args)? })
    }
}
