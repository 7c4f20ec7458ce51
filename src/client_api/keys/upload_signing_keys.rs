//! `POST /_matrix/client/v3/keys/device_signing/upload` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload

use axum::extract::State;
use ruma::api::client::keys::upload_signing_keys::v3::{Request, Response};

use crate::{
    app::App,
    client_api::uiaa::{self, Interactive},
    endpoint::Authed,
    http::{ApiError, Reply},
    keys::cross_signing::{SigningKeys, SigningKeysError},
};

/// The operation that the caller's proof of identity is for.
const OPERATION: &str = "POST keys/device_signing/upload";

/// Publishes the caller's cross-signing keys. The first keys, and the same keys again, need no authentication.
pub(super) async fn handle(
    State(app): State<App>,
    Authed { caller, request: Interactive(request), address, .. }: Authed<Interactive<Request>>,
) -> Result<Reply<Response>, ApiError> {
    let Request { auth, master_key, self_signing_key, user_signing_key, .. } = request;
    let keys = SigningKeys::check(
        caller.user_id(),
        master_key.as_ref(),
        self_signing_key.as_ref(),
        user_signing_key.as_ref(),
    )?;
    app.rooms.load_memberships(caller.user.nid).await?;
    // The transaction decides whether these keys replace others, so that no other request can come in between.
    match app.keys.upload_signing_keys(&caller, keys.clone(), false).await {
        Err(SigningKeysError::NeedsAuthentication) => {
            uiaa::require_password_of_person(&app, &caller, OPERATION, auth.as_ref(), address).await?;
            app.keys.upload_signing_keys(&caller, keys, true).await?;
        }
        result => result?,
    }
    Ok(Reply(Response::new()))
}
