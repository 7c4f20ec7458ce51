//! `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid

use axum::extract::State;
use bytes::Bytes;
use ruma::api::client::room::get_room_event::v3::Request;

use crate::{
    app::App,
    client_api::events::Events,
    endpoint::Authed,
    http::{ApiError, RawJson},
    room::read::viewer::ReadError,
};

/// One event, if the caller may see it.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await.map_err(ReadError::of_event)?;
    let (_, event) = app.rooms.event(&viewer, &request.event_id).await?;
    let mut out = Vec::new();
    Events::new(&app, &viewer).write(&mut out, &event).await?;
    Ok(RawJson(Bytes::from(out)))
}
