//! `POST /_matrix/client/v3/rooms/{roomId}/read_markers` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers

use axum::extract::State;
use ruma::api::client::read_marker::set_read_marker::v3::{Request, Response};

use crate::{
    app::App,
    client_api::receipt::joined_room,
    endpoint::Authed,
    ephemeral::receipts::{Kind, Markers, NewReceipt},
    http::{ApiError, Reply},
};

/// Moves the read marker and sends receipts, all in one commit.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let room = joined_room(&app, &caller, &request.room_id).await?;
    let receipts = [(Kind::Read, request.read_receipt), (Kind::ReadPrivate, request.private_read_receipt)]
        .into_iter()
        .filter_map(|(kind, event_id)| Some(NewReceipt { kind, thread: None, event_id: event_id? }))
        .collect();
    let markers = Markers { fully_read: request.fully_read, receipts };
    app.ephemeral.mark_read(&app.rooms, &room, &caller.user, markers).await?;
    app.ephemeral.active(&app.rooms, &caller.user).await?;
    Ok(Reply(Response::new()))
}
