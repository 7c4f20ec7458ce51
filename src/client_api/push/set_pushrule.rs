//! `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid

use axum::extract::State;
use ruma::api::client::push::set_pushrule::v3::{Request, Response};

use crate::{
    app::App,
    http::{ApiError, Authed, Reply},
    push::rules,
};

/// Adds a rule, or replaces one.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let Request { rule, after, before, .. } = request;
    app.push.change(&caller.user, |ruleset| rules::put(ruleset, rule, after.as_deref(), before.as_deref())).await?;
    Ok(Reply(Response::new()))
}
