//! `GET /_matrix/client/v3/pushrules/global/` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal

use axum::extract::State;
use ruma::api::client::push::get_pushrules_global_scope::v3::Request;

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, RawJson},
    push::rules,
};

/// All rules. Clients rely on all five kinds being present, even if empty.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, .. }: Authed<Request>,
) -> Result<RawJson, ApiError> {
    Ok(RawJson(rules::global(&*app.push.ruleset(&caller.user).await?)?.to_string().into()))
}
