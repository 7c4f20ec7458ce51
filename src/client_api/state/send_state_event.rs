//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey

use axum::extract::State;
use ruma::api::client::state::send_state_event::v3::{Request, Response};
use sabha_federation::EventDraft;

use crate::{
    app::App,
    client_api::exact_type::ExactType,
    http::{ApiError, Authed, Reply},
};

/// Sends a state event. State that is already so stays as it is, and its event's ID is returned.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<ExactType<Request>>,
) -> Result<Reply<Response>, ApiError> {
    let ExactType { event_type, request } = request;
    let content = request.body.into_json();
    let draft = EventDraft { event_type, state_key: Some(request.state_key), content, redacts: None };
    let event_id = app.rooms.send_state(&caller, &request.room_id, draft).await?;
    Ok(Reply(Response::new(event_id)))
}
