//! `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid

use axum::extract::State;
use ruma::api::client::push::delete_pushrule::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    push::rules,
};

/// Removes a rule that the user added.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    app.push.change(&caller.user, |ruleset| rules::remove(ruleset, request.kind, &request.rule_id)).await?;
    Ok(Reply(Response::new()))
}
