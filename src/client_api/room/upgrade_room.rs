//! `POST /_matrix/client/v3/rooms/{roomId}/upgrade` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade

use axum::extract::State;
use ruma::api::client::room::upgrade_room::v3::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
    room::write::upgrade::Upgrade,
    use_cases::joining,
};

use super::version::{NewVersion, Versioned};

/// The maximum number of users that may share the creator's power.
const MAX_ADDITIONAL_CREATORS: usize = 100;

/// Replaces a room with one of another version, with its settings, its aliases and its place in the directory.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, .. }: Authed<Versioned<NewVersion, Request>>,
) -> Result<Reply<Response>, ApiError> {
    let request = request.known()?;
    if request.additional_creators.len() > MAX_ADDITIONAL_CREATORS {
        let message = format!("A room has at most {MAX_ADDITIONAL_CREATORS} additional creators.");
        return Err(ApiError::invalid_param(message));
    }
    let upgrade = Upgrade { version: request.new_version, additional_creators: request.additional_creators };
    Ok(Reply(Response::new(joining::upgrade(&app, &caller, &request.room_id, upgrade).await?)))
}
