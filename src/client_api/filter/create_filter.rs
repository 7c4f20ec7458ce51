//! `POST /_matrix/client/v3/user/{userId}/filter` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter

use axum::extract::State;
use ruma::api::client::filter::create_filter::v3::{Request, Response};

use crate::{
    app::App,
    client_api::config::check_own,
    http::{ApiError, Authed, Reply},
    sync::filter::SyncFilter,
};

/// Stores a filter. The same filter has the same id.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    // Refused here instead of at each sync that would use it.
    SyncFilter::new(&request.filter)?;
    let filter_id = app.filters.create(caller.user.nid, request.filter).await?;
    Ok(Reply(Response::new(filter_id)))
}
