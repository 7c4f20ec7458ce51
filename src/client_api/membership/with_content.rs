//! Join requests with additional content for the member event.
//!
//! The specification names only `reason` and `third_party_signed` and is silent about other keys. Clients that send
//! other keys mean them for the member event, where other servers put them too. Anyone may set them with `PUT
//! …/state/m.room.member` anyway.

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
