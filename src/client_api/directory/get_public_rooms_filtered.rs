//! `POST /_matrix/client/v3/publicRooms` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3publicrooms

use axum::extract::State;
use ruma::api::client::directory::get_public_rooms_filtered::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    use_cases::directory::{Query, list},
};

/// A page of the matching rooms of the public directory.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let query = Query {
        limit: request.limit,
        since: request.since.as_deref(),
        server: request.server.as_deref(),
        filter: &request.filter,
        federating: false,
    };
    let listed = list(&app, &query).await?;
    let mut response = Response::new();
    response.chunk = listed.chunk;
    response.next_batch = listed.next_batch;
    response.prev_batch = listed.prev_batch;
    response.total_room_count_estimate = Some(listed.total);
    Ok(Reply(response))
}
