//! `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid

use axum::extract::State;
use ruma::api::client::redact::redact_event::v3::{Request, Response};
use sabha_federation::EventDraft;
use serde_json::{json, value::to_raw_value};

use crate::{
    app::App,
    client_api::txn,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Removes the content of an event. Asking again with the same `txnId` returns the first redaction's ID.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let key = txn::key(&caller, format!("redact/{}/{}", request.room_id, request.event_id), &request.txn_id)?;
    let content = match request.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let draft = EventDraft {
        event_type: "m.room.redaction".to_owned(),
        state_key: None,
        content: to_raw_value(&content).expect("a JSON value serializes"),
        redacts: Some(request.event_id),
    };
    let event_id = app.rooms.send(&caller, &request.room_id, draft, Some(key)).await?;
    Ok(Reply(Response::new(event_id)))
}
