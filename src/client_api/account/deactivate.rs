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
    app::App,
    client_api::uiaa::{self, Interactive},
    endpoint::Authed,
    http::{ApiError, Reply},
    use_cases::deactivation,
};

/// Deactivates the caller's account for ever. Profile, keys and account data always go, so `erase` changes nothing there.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Interactive(request), address, .. }: Authed<Interactive<Request>>,
) -> Result<Reply<Response>, ApiError> {
    let caller = signed_in(caller)?;
    uiaa::require_password(&app, &caller, "POST account/deactivate", request.auth.as_ref(), address).await?;
    deactivation::deactivate(&app, caller.user_id()).await?;
    // We never tell identity servers anything.
    Ok(Reply(Response::new(ThirdPartyIdRemovalStatus::NoSupport)))
}
