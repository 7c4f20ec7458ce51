//! `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid

use axum::extract::State;
use ruma::api::{
    IncomingRequest,
    client::typing::create_typing_event::v3::{Request as RumaRequest, Response, Typing},
    error::DeserializationError,
};
use serde_json::{Map, Value};

use crate::{
    app::App,
    client_api::{config::check_own, receipt::joined_room, with::same_endpoint},
    endpoint::Authed,
    ephemeral::typing::DEFAULT_TYPING,
    http::{ApiError, Reply},
};

/// Ruma's request, with the `timeout` that the specification lets clients leave out.
pub(super) struct Request(RumaRequest);

same_endpoint!(Request as RumaRequest);

impl IncomingRequest for Request {
    type EndpointError = <RumaRequest as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let mut body: Map<String, Value> = serde_json::from_slice(body)?;
        let default_ms = u64::try_from(DEFAULT_TYPING.as_millis()).unwrap_or(u64::MAX);
        body.entry("timeout").or_insert_with(|| default_ms.into());
        let body = serde_json::to_vec(&body)?;
        RumaRequest::try_from_http_request_inner(http::Request::from_parts(parts, &body), path_args).map(Self)
    }
}

/// Records that the user is typing, or no longer is.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Request(request), .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let room = joined_room(&app, &caller, &request.room_id).await?;
    let typing_for = match request.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    app.ephemeral.set_typing(room.nid, &caller.user, typing_for);
    if typing_for.is_some() && !app.rooms.is_joined(caller.user.nid, &room).await? {
        // The user left meanwhile. The leave ended their typing before it was set, so it is ended again here.
        app.ephemeral.set_typing(room.nid, &caller.user, None);
    }
    app.ephemeral.active(&app.rooms, &caller.user).await?;
    Ok(Reply(Response::new()))
}
