//! `DELETE /_matrix/client/v3/profile/{userId}/{keyName}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname

use axum::extract::State;
use ruma::api::client::profile::delete_profile_field::v3::{Request, Response};

use super::change;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Removes a field of the caller's profile. A field that is not set counts as removed.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    change(&app, &caller, &request.user_id, request.field.as_str(), None).await?;
    Ok(Reply(Response::new()))
}
