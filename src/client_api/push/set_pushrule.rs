//! `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid

use axum::extract::State;
use ruma::api::{
    IncomingRequest,
    client::push::set_pushrule::v3::{Request, Response},
    error::DeserializationError,
};
use serde_json::{Value, json};

use crate::{
    app::App,
    client_api::with::same_endpoint,
    endpoint::Authed,
    http::{ApiError, Reply},
    push::rules,
};

/// Adds a rule, or replaces one.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Lenient(request), .. }: Authed<Lenient>,
) -> Result<Reply<Response>, ApiError> {
    let Request { rule, after, before, .. } = request;
    app.push.change(&caller.user, |ruleset| rules::put(ruleset, rule, after.as_deref(), before.as_deref())).await?;
    Ok(Reply(Response::new()))
}

/// The request, in which missing `conditions` count as empty. The specification does not require them, but ruma does.
pub(super) struct Lenient(Request);

same_endpoint!(Lenient as Request);

impl IncomingRequest for Lenient {
    type EndpointError = <Request as IncomingRequest>::EndpointError;
    type OutgoingResponse = Response;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let completed = completed(body);
        let body = completed.as_deref().unwrap_or(body);
        Request::try_from_http_request_inner(http::Request::from_parts(parts, body), path_args).map(Self)
    }
}

/// The body with empty `conditions` added, if it is an object without them. Kinds of rules without conditions ignore
/// them.
fn completed(body: &[u8]) -> Option<Vec<u8>> {
    let Ok(Value::Object(mut rule)) = serde_json::from_slice(body) else { return None };
    if rule.contains_key("conditions") {
        return None;
    }
    rule.insert("conditions".to_owned(), json!([]));
    serde_json::to_vec(&rule).ok()
}
