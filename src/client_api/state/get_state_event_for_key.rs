//! `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey

use axum::extract::State;
use bytes::Bytes;
use ruma::api::client::state::get_state_event_for_key::v3::{Request, StateEventFormat};

use crate::{
    app::App,
    client_api::{
        events::Events,
        with::{ExactType, With},
    },
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// One event of the room's state, or only its content: as it is now, or as it was when the caller left.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<With<ExactType, Request>>,
) -> Result<RawJson, ApiError> {
    let With { besides: ExactType(event_type), request } = request;
    let viewer = app.rooms.viewer(&app.account_data, &caller, &request.room_id).await?;
    let upto = app.rooms.state_horizon(&viewer.sight);
    let event = app
        .rooms
        .state_event(&viewer.room, &event_type, &request.state_key, upto)
        .await?
        .ok_or_else(|| ApiError::not_found("The room has no such state."))?;
    let json = match request.format {
        StateEventFormat::Content => event.pdu.content.get().as_bytes().to_vec(),
        StateEventFormat::Event => {
            let mut out = Vec::new();
            Events::new(&app, &viewer).write(&mut out, &event).await?;
            out
        }
        _ => return Err(ApiError::invalid_param("format is content or event.")),
    };
    Ok(RawJson(Bytes::from(json)))
}
