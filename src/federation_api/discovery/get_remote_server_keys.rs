//! `GET /_matrix/key/v2/query/{serverName}` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername

use axum::extract::State;
use ruma::api::federation::discovery::get_remote_server_keys::v2::{Request, Response};

use super::own_keys;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The keys of a server, as a notary. So far only of this server; an empty answer for others sends the requester to the
/// server itself.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let is_ours = request.server_name == *app.signer.server_name();
    Ok(Reply(Response::new(if is_ours { vec![own_keys(&app)?] } else { Vec::new() })))
}
