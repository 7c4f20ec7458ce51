//! `GET /_matrix/client/v3/pushrules/` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules

use axum::extract::State;
use ruma::api::client::push::get_pushrules_all::v3::Request;

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
};

/// All rules, with their scope.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(app.push.content(&caller.user).await?.get().to_owned().into()))
}
