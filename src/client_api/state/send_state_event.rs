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
        with::{NewEvent, With},
    },
    endpoint::Authed,
    http::{ApiError, Reply},
    limits::rate_limits::Action,
};

/// Sends a state event. If the state is already the same, nothing is sent, and the current event's ID is returned.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, address, .. }: Authed<With<NewEvent, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let With { besides, request } = request;
    let event_type = besides.sent_now()?;
    let content = request.body.into_json();
    if event_type == "m.room.member" {
        let membership = membership(&content);
        if membership.as_deref() == Some("invite") {
            check_invitee(&app, &request.state_key)?;
        }
        // An action counts toward its rate limit, whichever endpoint performs it.
        match membership.as_deref() {
            Some("invite") => app.rate_limits.check_done(Action::Invite, 1, &caller, address)?,
            Some("join" | "knock") => app.rate_limits.check_done(Action::Join, 1, &caller, address)?,
            _ => {}
        }
    }
    // Only application services may choose the timestamp.
    let date = request.timestamp.filter(|_| caller.appservice.is_some());
    let draft = EventDraft { event_type, state_key: Some(request.state_key), content, redacts: None };
    let event_id = app.rooms.send_state_dated(&caller, &request.room_id, draft, date).await?;
    Ok(Reply(Response::new(event_id)))
}

/// The membership in the content of a member event.
fn membership(content: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Content {
        membership: Option<String>,
    }
    serde_json::from_str::<Content>(content.get()).ok()?.membership
}

/// Applies the restrictions of `/invite` to an invitation that is sent as state.
fn check_invitee(app: &App, user_id: &str) -> Result<(), ApiError> {
    match <&UserId>::try_from(user_id) {
        Ok(user_id) => check_is_local(app, user_id),
        // The room refuses a text that is not a user ID.
        Err(_) => Ok(()),
    }
}
