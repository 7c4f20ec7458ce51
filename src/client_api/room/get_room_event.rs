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
    room::history::ReadError,
};

/// One event, if the caller may see it.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    // For a room that the caller may not see, this endpoint answers that the event is not found.
    let (room, sight) = app.rooms.readable(&caller, &request.room_id).await.map_err(|error| match error {
        ReadError::NotInRoom { .. } => ReadError::UnknownEvent,
        error => error,
    })?;
    let (_, event) = app.rooms.event(&room, &sight, &request.event_id).await?;
    if event.is_hidden_by(&*app.account_data.ignored(&caller.user).await?) {
        return Err(ReadError::UnknownEvent.into());
    }
    let mut out = Vec::new();
    Events::new(&app, &caller, &sight).write(&mut out, &event).await?;
    Ok(RawJson(Bytes::from(out)))
}
