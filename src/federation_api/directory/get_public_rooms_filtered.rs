//! `POST /_matrix/federation/v1/publicRooms` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms

use axum::extract::State;
// The answer is the same as without a filter. Ruma's own type for this endpoint writes `null` for missing tokens.
use ruma::api::federation::directory::{get_public_rooms::v1::Response, get_public_rooms_filtered::v1::Request};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    use_cases::directory::{Query, list},
};

/// A page of the matching rooms in our public directory.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let Request { limit, since, filter, .. } = &request;
    let query = Query { limit: *limit, since: since.as_deref(), server: None, filter, federating: true };
    let listed = list(&app, &query).await?;
    let mut response = Response::new();
    response.chunk = listed.chunk;
    response.next_batch = listed.next_batch;
    response.prev_batch = listed.prev_batch;
    response.total_room_count_estimate = Some(listed.total);
    Ok(Reply(response))
}
