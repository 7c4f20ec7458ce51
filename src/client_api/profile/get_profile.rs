//! `GET /_matrix/client/v3/profile/{userId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid

use axum::extract::State;
use ruma::api::client::profile::get_profile::v3::{Request, Response};

use super::{elsewhere, unknown_profile};
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The whole profile of a user; for a user of another server, we ask that server.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    if let Some(federation) = elsewhere(&app, &request.user_id) {
        return Ok(Reply(federation.profile(&request.user_id, None).await?.into_iter().collect()));
    }
    let fields = app.accounts.find_profile(&request.user_id).await?.ok_or_else(unknown_profile)?;
    Ok(Reply(fields.into_iter().collect()))
}
