//! `GET /_matrix/federation/v1/publicRooms` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms

use axum::extract::State;
use ruma::{
    api::federation::directory::get_public_rooms::v1::{Request, Response},
    directory::Filter,
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    use_cases::directory::{Query, list},
};

/// A page of our public directory.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let filter = Filter::new();
    let (limit, since) = (request.limit, request.since.as_deref());
    let query = Query { limit, since, server: None, filter: &filter, federating: true };
    let listed = list(&app, &query).await?;
    let mut response = Response::new();
    response.chunk = listed.chunk;
    response.next_batch = listed.next_batch;
    response.prev_batch = listed.prev_batch;
    response.total_room_count_estimate = Some(listed.total);
    Ok(Reply(response))
}
