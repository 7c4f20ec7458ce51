//! `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype

use axum::extract::State;
use ruma::api::client::relations::get_relating_events_with_rel_type::v1::Request;

use super::{Asked, ExactTypes, With, page};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// The events that relate to an event with one relation type.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<With<ExactTypes, Request>>,
) -> Result<RawJson, ApiError> {
    let With { besides: ExactTypes { rel_type, event_type }, request } = request;
    let asked = Asked {
        room_id: &request.room_id,
        event_id: &request.event_id,
        rel_type: rel_type.as_deref(),
        event_type: event_type.as_deref(),
        dir: request.dir,
        from: request.from.as_deref(),
        to: request.to.as_deref(),
        limit: request.limit,
        recurse: request.recurse,
    };
    page(&app, &caller, asked).await
}
