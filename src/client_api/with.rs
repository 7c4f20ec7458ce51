//! Requests of ruma's with something that ruma does not keep: an event type as it was written, or the whole body.

use ruma::api::{IncomingRequest, Metadata, error::DeserializationError};
use serde::de::Error as _;

use crate::http::NoBody;

/// What is read from a request beside its ruma type.
pub(super) trait Besides: Sized {
    /// Whether no body at all is an error. Usually it counts as an empty object.
    const NEEDS_BODY: bool = false;

    /// Reads it from the body and the arguments of the path, in the order of the path.
    ///
    /// # Errors
    /// When the body is not what it should be.
    fn read(body: &[u8], path_args: &[&str]) -> Result<Self, DeserializationError>;
}

/// A request, and what was read besides.
pub(super) struct With<B, R> {
    pub(super) besides: B,
    pub(super) request: R,
}

impl<B, R: Metadata> Metadata for With<B, R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: Self::PathBuilder = R::PATH_BUILDER;
}

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
        let besides = B::read(request.body(), path_args)?;
        Ok(Self { besides, request: R::try_from_http_request_inner(request, path_args)? })
    }
}

/// The event type of a path that has it after the room, exactly as the client wrote it.
///
/// Ruma's enums spell some unstable types as their stable aliases. What a client sends under a type must be stored under
/// that type.
pub(super) struct ExactType(pub(super) String);

impl Besides for ExactType {
    fn read(_: &[u8], path_args: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self(path_args.get(1).copied().unwrap_or_default().to_owned()))
    }
}

/// The event type of a request that sends an event. Its body is the event's content.
pub(super) struct SentType(pub(super) String);

impl Besides for SentType {
    const NEEDS_BODY: bool = true;

    fn read(body: &[u8], path_args: &[&str]) -> Result<Self, DeserializationError> {
        ExactType::read(body, path_args).map(|ExactType(event_type)| Self(event_type))
    }
}
