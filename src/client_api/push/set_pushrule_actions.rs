//! `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions

use axum::extract::State;
use ruma::api::client::push::set_pushrule_actions::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    push::rules,
};

/// Changes the actions of a rule, even of a server-default rule.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let Request { kind, rule_id, actions, .. } = request;
    app.push.change(&caller.user, |ruleset| rules::set_actions(ruleset, kind, &rule_id, actions)).await?;
    Ok(Reply(Response::new()))
}
