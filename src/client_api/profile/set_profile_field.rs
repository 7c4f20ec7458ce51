//! `PUT /_matrix/client/v3/profile/{userId}/{keyName}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname

use axum::extract::State;
use ruma::{
    OwnedUserId, UserId,
    api::{
        IncomingRequest,
        client::profile::set_profile_field::v3::{Request as Typed, Response},
        error::DeserializationError,
    },
};
use serde::de::Error as _;
use serde_json::{Map, Value as JsonValue};

use super::change;
use crate::{
    app::App,
    client_api::with::same_endpoint,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Sets a field of the caller's profile.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    change(&app, &caller, &request.user_id, &request.field, Some(request.value)).await?;
    Ok(Reply(Response::new()))
}

/// The request with any JSON as the value: ruma's own type refuses `null`, which clients send to remove a name or an
/// avatar.
pub(super) struct Request {
    user_id: OwnedUserId,
    field: String,
    value: JsonValue,
}

same_endpoint!(Request as Typed);

impl IncomingRequest for Request {
    type EndpointError = <Typed as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let [user_id, field] = path_args else {
            return Err(serde_json::Error::custom("the path has two parameters").into());
        };
        let mut body: Map<String, JsonValue> = serde_json::from_slice(request.body())?;
        let missing = || serde_json::Error::custom(format_args!("missing field `{field}`"));
        let value = body.remove(*field).ok_or_else(missing)?;
        Ok(Self { user_id: UserId::parse(*user_id)?, field: (*field).to_owned(), value })
    }
}
