//! `GET /_matrix/key/v2/query/{serverName}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::api::federation::discovery::get_remote_server_keys::v2::{Request, Response};

use super::notary_answers;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    remote::WantedAnswer,
};

/// The keys of a server, as a notary. An empty answer says that we have none.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let wanted = WantedAnswer { keys: BTreeMap::new(), until_ms: i64::from(request.minimum_valid_until_ts.0) };
    Ok(Reply(Response::new(notary_answers(&app, BTreeMap::from([(request.server_name, wanted)])).await?)))
}
