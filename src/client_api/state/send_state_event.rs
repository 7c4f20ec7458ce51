//! `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey

use axum::extract::State;
use ruma::{
    UserId,
    api::client::state::send_state_event::v3::{Request, Response},
};
use sabha_federation::EventDraft;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::App,
    client_api::{
        membership::check_is_local,
        with::{SentType, With},
    },
    http::{ApiError, Authed, Reply},
};

/// Sends a state event. State that is already so stays as it is, and its event's ID is returned.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<With<SentType, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let With { besides: SentType(event_type), request } = request;
    let content = request.body.into_json();
    if event_type == "m.room.member" {
        check_invitee(&app, &request.state_key, &content)?;
    }
    // Only application services may choose.
    let date = request.timestamp.filter(|_| caller.appservice.is_some());
    let draft = EventDraft { event_type, state_key: Some(request.state_key), content, redacts: None };
    let event_id = app.rooms.send_state_dated(&caller, &request.room_id, draft, date).await?;
    Ok(Reply(Response::new(event_id)))
}

/// An invitation sent as state reaches no further than one sent with `/invite`.
fn check_invitee(app: &App, user_id: &str, content: &RawValue) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Content {
        membership: Option<String>,
    }
    let invites = serde_json::from_str::<Content>(content.get())
        .is_ok_and(|content| content.membership.as_deref() == Some("invite"));
    match <&UserId>::try_from(user_id) {
        Ok(user_id) if invites => check_is_local(app, user_id),
        // What is no user ID is refused by the room.
        _ => Ok(()),
    }
}
