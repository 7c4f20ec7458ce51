//! `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled

use axum::extract::State;
use ruma::api::client::push::set_pushrule_enabled::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    push::rules,
};

/// Enables or disables a rule, even a server-default rule.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let Request { kind, rule_id, enabled, .. } = request;
    app.push.change(&caller.user, |ruleset| rules::set_enabled(ruleset, kind, &rule_id, enabled)).await?;
    Ok(Reply(Response::new()))
}
