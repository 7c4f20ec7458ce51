//! `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid

use axum::extract::State;
use ruma::api::client::to_device::send_event_to_device::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Sends messages to devices. Asking again with the same `txnId` sends nothing.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let event_type = request.event_type.to_string();
    app.keys.send_to_device(&caller, &event_type, &request.txn_id, &request.messages).await?;
    Ok(Reply(Response::new()))
}
