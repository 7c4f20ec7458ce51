//! `GET /_matrix/client/v3/profile/{userId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid

use axum::extract::State;
use ruma::api::client::profile::get_profile::v3::{Request, Response};

use super::unknown_profile;
use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
};

/// All that a user of this server says about themselves.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let fields = app.accounts.find_profile(&request.user_id).await?.ok_or_else(unknown_profile)?;
    Ok(Reply(fields.into_iter().collect()))
}
