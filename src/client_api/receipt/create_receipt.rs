//! `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid

use axum::extract::State;
use ruma::{
    api::client::receipt::create_receipt::v3::{ReceiptType, Request, Response},
    events::receipt::ReceiptThread,
};

use super::joined_room;
use crate::{
    app::App,
    endpoint::Authed,
    ephemeral::receipts::{Kind, Markers, NewReceipt},
    http::{ApiError, Reply},
};

/// Marks an event as read, in the room or in a thread. A receipt never moves backward.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let room = joined_room(&app, &caller, &request.room_id).await?;
    let no_thread = || ApiError::invalid_param("thread_id must be \"main\" or the ID of an event of this room.");
    let thread = match &request.thread {
        ReceiptThread::Unthreaded => None,
        ReceiptThread::Main => request.thread.as_str().map(str::to_owned),
        // Each thread adds a permanent row, so its root event must exist.
        ReceiptThread::Thread(root) => {
            app.rooms.find_in_timeline(&room, root).await?.ok_or_else(no_thread)?;
            Some(root.to_string())
        }
        _ => return Err(no_thread()),
    };
    let event_id = request.event_id;
    if let Some(thread) = &thread
        && !app.rooms.may_be_in_thread(&room, &event_id, thread).await?
    {
        return Err(ApiError::invalid_param("The event is not in the thread that thread_id names."));
    }
    let markers = match request.receipt_type {
        ReceiptType::Read => Markers::receipt(NewReceipt { kind: Kind::Read, thread, event_id }),
        ReceiptType::ReadPrivate => Markers::receipt(NewReceipt { kind: Kind::ReadPrivate, thread, event_id }),
        ReceiptType::FullyRead if thread.is_none() => Markers { fully_read: Some(event_id), ..Markers::default() },
        ReceiptType::FullyRead => return Err(ApiError::invalid_param("m.fully_read has no thread_id.")),
        _ => return Err(ApiError::invalid_param("The type must be m.read, m.read.private or m.fully_read.")),
    };
    app.ephemeral.mark_read(&app.rooms, &room, &caller.user, markers).await?;
    app.ephemeral.active(&app.rooms, &caller.user).await?;
    Ok(Reply(Response::new()))
}
