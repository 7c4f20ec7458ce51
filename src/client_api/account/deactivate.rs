//! `POST /_matrix/client/v3/account/deactivate` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate

use axum::extract::State;
use ruma::api::client::account::{
    ThirdPartyIdRemovalStatus,
    deactivate::v3::{Request, Response},
};

use super::signed_in;
use crate::{
    account::LocalDevice,
    app::App,
    client_api::uiaa,
    http::{ApiError, Authed, Reply},
    room::{send::SendError, state_log::Membership},
};

/// Deactivates the caller's account for ever. Profile, keys and account data always go, so `erase` changes nothing there.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request, address }: Authed<Request>,
) -> Result<Reply<Response>, ApiError> {
    let caller = signed_in(caller)?;
    uiaa::require_password(&app, &caller, "POST account/deactivate", request.auth.as_ref(), address).await?;
    leave_rooms(&app, &caller).await?;
    app.accounts.deactivate(caller.user_id()).await?;
    // No identity server was ever told anything.
    Ok(Reply(Response::new(ThirdPartyIdRemovalStatus::NoSupport)))
}

/// Leaves all rooms while the account still can. A room that cannot be left does not keep the account active.
async fn leave_rooms(app: &App, caller: &LocalDevice) -> Result<(), ApiError> {
    for entry in app.rooms.memberships(caller.user.nid).await? {
        if !matches!(entry.membership, Membership::Join | Membership::Invite | Membership::Knock) {
            continue;
        }
        let room = app.rooms.by_nid(entry.room).await?;
        match app.rooms.leave(caller, &room.room_id, None).await {
            Ok(()) => {}
            Err(SendError::Storage(error)) => return Err(error.into()),
            Err(error) => tracing::warn!(room_id = %room.room_id, %error, "a deactivated user stays in the room"),
        }
    }
    Ok(())
}
