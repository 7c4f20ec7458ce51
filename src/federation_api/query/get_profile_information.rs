//! `GET /_matrix/federation/v1/query/profile` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile

use axum::extract::State;
use ruma::api::federation::query::get_profile_information::v1::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The profile of a user of this server: all fields, or one.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let fields = app.accounts.find_profile(&request.user_id).await?;
    let fields = fields.ok_or_else(|| ApiError::not_found("There is no such user here."))?;
    let is_wanted = |name: &str| request.field.as_ref().is_none_or(|field| field.as_str() == name);
    // A field that is not set is left out. The specification requires no error for it.
    Ok(Reply(fields.into_iter().filter(|(name, _)| is_wanted(name)).collect()))
}
