//! Requests to join, with what else the client wants its member event to hold.
//!
//! The specification names only `reason` and `third_party_signed` and is silent about other keys. Clients that send them
//! mean them for the member event, as with other servers, where anyone may set them with `PUT …/state/m.room.member` anyway.

use ruma::api::error::DeserializationError;
use serde_json::{Map, Value};

use crate::client_api::with::Besides;

/// The whole body of a request.
pub(super) struct Content(pub(super) Map<String, Value>);

impl Besides for Content {
    fn read(request: &http::Request<&[u8]>, _: &[&str]) -> Result<Self, DeserializationError> {
        Ok(Self(serde_json::from_slice(request.body())?))
    }
}
