//! `GET /_matrix/client/v3/rooms/{roomId}/state` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate

use axum::extract::State;
use bytes::Bytes;
use ruma::api::client::state::get_state_events::v3::Request;

use crate::{
    app::App,
    client_api::{events::Events, large_state::StateTurn},
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// The whole state of the room: as it is now, or as it was when the caller left.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await?;
    let upto = app.rooms.state_horizon(&viewer.sight);
    let mut turn = StateTurn::of(&app, &caller, &viewer.room).await?;
    let state = turn.read(|| app.rooms.state_events(&viewer.room, upto)).await?;
    let mut out = Vec::new();
    Events::new(&app, &viewer).write_state(&mut out, &state);
    Ok(RawJson(Bytes::from(out)))
}
