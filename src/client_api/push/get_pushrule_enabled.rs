//! `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled

use axum::extract::State;
use ruma::api::client::push::get_pushrule_enabled::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    push::RuleError,
};

/// Returns whether a rule is enabled.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let ruleset = app.push.ruleset(&caller.user).await?;
    let rule = ruleset.get(request.kind, &request.rule_id).ok_or(RuleError::NotFound)?;
    Ok(Reply(Response::new(rule.enabled())))
}
