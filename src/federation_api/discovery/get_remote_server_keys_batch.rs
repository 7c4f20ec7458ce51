//! `POST /_matrix/key/v2/query` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query

use axum::extract::State;
use ruma::api::federation::discovery::get_remote_server_keys_batch::v2::{Request, Response};

use super::own_keys;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// The keys of many servers, as a notary. So far only of this server.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let is_asked = request.server_keys.contains_key(app.signer.server_name());
    Ok(Reply(Response::new(if is_asked { vec![own_keys(&app)?] } else { Vec::new() })))
}
