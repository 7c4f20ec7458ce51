//! `GET /_matrix/client/v3/user/{userId}/filter/{filterId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid

use axum::extract::State;
use bytes::Bytes;
use ruma::api::client::filter::get_filter::v3::Request;

use crate::{
    app::App,
    client_api::config::check_own,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// A filter that the user has stored.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    check_own(&caller, &request.user_id)?;
    let filter = app.filters.find(caller.user.nid, &request.filter_id).await?;
    let filter = filter.ok_or_else(|| ApiError::not_found("There is no such filter."))?;
    let json = filter.to_json().map_err(ApiError::internal)?;
    Ok(RawJson(Bytes::from(json)))
}
