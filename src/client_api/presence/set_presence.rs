//! `PUT /_matrix/client/v3/presence/{userId}/status` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus

use axum::extract::State;
use ruma::api::client::presence::set_presence::v3::{Request, Response};

use crate::{
    app::App,
    client_api::config::check_own,
    endpoint::Authed,
    ephemeral::presence::{Availability, MAX_STATUS_MSG_BYTES},
    http::{ApiError, Reply},
};

/// Sets the caller's presence. If the server keeps no presence, the request is accepted and ignored.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    check_own(&caller, &request.user_id)?;
    let availability = Availability::new(&request.presence)
        .ok_or_else(|| ApiError::invalid_param("The presence must be online, unavailable or offline."))?;
    if request.status_msg.as_ref().is_some_and(|status_msg| status_msg.len() > MAX_STATUS_MSG_BYTES) {
        return Err(ApiError::invalid_param(format!("A status must not be longer than {MAX_STATUS_MSG_BYTES} bytes.")));
    }
    app.ephemeral.set_presence(&app.rooms, &caller.user, availability, request.status_msg).await?;
    Ok(Reply(Response::new()))
}
