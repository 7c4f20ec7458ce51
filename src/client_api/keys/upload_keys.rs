//! `POST /_matrix/client/v3/keys/upload` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::{
    UInt,
    api::client::keys::upload_keys::v3::{Request, Response},
};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::validate::Upload,
};

/// Publishes keys of the caller's device, and returns how many one-time keys it then has.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let device_id =
        caller.device_id.as_deref().ok_or_else(|| ApiError::missing_param("Keys belong to a device_id."))?;
    let upload = Upload::check(
        (caller.user_id(), device_id),
        request.device_keys.as_ref(),
        &request.one_time_keys,
        &request.fallback_keys,
    )?;
    if upload.device_keys.is_some() {
        app.rooms.load_memberships(caller.user.nid).await?;
    }
    let counts = app.keys.upload(&caller, upload).await?;
    let counts: BTreeMap<_, _> = counts
        .one_time
        .iter()
        .map(|(algorithm, count)| (algorithm.as_str().into(), UInt::new_saturating(*count)))
        .collect();
    Ok(Reply(Response::new(counts)))
}
