//! `POST /_matrix/key/v2/query` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query

use axum::extract::State;
use ruma::api::federation::discovery::get_remote_server_keys_batch::v2::{Request, Response};

use super::notary_answers;
use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    remote::{MAX_SERVERS, WantedAnswer},
};

/// The keys of many servers, as a notary. Servers of which we have none are left out.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    if request.server_keys.len() > MAX_SERVERS {
        return Err(ApiError::invalid_param(format!("`server_keys` must not name more than {MAX_SERVERS} servers.")));
    }
    let now_ms = app.clock.now_ms();
    let wanted = request.server_keys.into_iter().map(|(server, keys)| {
        let until_ms =
            |minimum: Option<ruma::MilliSecondsSinceUnixEpoch>| minimum.map_or(now_ms, |minimum| minimum.0.into());
        let keys = keys.into_iter().map(|(key_id, criteria)| (key_id, until_ms(criteria.minimum_valid_until_ts)));
        (server, WantedAnswer { keys: keys.collect(), until_ms: now_ms })
    });
    Ok(Reply(Response::new(notary_answers(&app, wanted.collect()).await?)))
}
