//! `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid

use axum::extract::State;
use ruma::api::client::message::send_message_event::v3::{Request, Response};
use sabha_federation::EventDraft;

use crate::{
    app::App,
    client_api::{
        txn,
        with::{NewEvent, With},
    },
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Sends a message event. Asking again with the same `txnId` returns the first event's ID.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<With<NewEvent, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let With { besides, request } = request;
    let event_type = besides.sent_now()?;
    let key = txn::key(&caller, format!("send/{}/{event_type}", request.room_id), &request.txn_id)?;
    // Only application services may choose the timestamp.
    let date = request.timestamp.filter(|_| caller.appservice.is_some());
    let draft = EventDraft { event_type, state_key: None, content: request.body.into_json(), redacts: None };
    let event_id = app.rooms.send_dated(&caller, &request.room_id, draft, Some(key), date).await?;
    // Sending a message is the spec's example of user activity.
    app.ephemeral.active(&app.rooms, &caller.user).await?;
    Ok(Reply(Response::new(event_id)))
}
