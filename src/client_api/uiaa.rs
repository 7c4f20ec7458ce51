//! User-interactive authentication: [`ruma::api::client::uiaa`], for the endpoints that require it.

use std::{collections::BTreeMap, net::IpAddr};

use ruma::api::{
    IncomingRequest, Metadata,
    client::uiaa::{AuthData, UiaaInfo},
    error::{DeserializationError, ErrorKind},
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use zeroize::Zeroizing;

use crate::{
    account::{
        LocalDevice,
        interactive_auth::{Flow, InteractiveAuthError, PASSWORD, Passed},
    },
    app::App,
    client_api::with::same_endpoint,
    http::ApiError,
    limits::rate_limits::Action,
    network::network,
};

/// A request that may hold a password. Clients from before r0.4.0 send `user` with it in place of an `identifier`; the
/// login accepts that as well.
pub(super) struct Interactive<R>(pub(super) R);

same_endpoint!([R: Metadata] Interactive<R> as R);

impl<R: IncomingRequest> IncomingRequest for Interactive<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let (parts, body) = request.into_parts();
        let identified = with_identifier(body);
        let body = identified.as_deref().map_or(body, Vec::as_slice);
        R::try_from_http_request_inner(http::Request::from_parts(parts, body), path_args).map(Self)
    }
}

/// The body with an `identifier` in its `auth`, if a password came with only a `user`. Everything else stays unchanged.
fn with_identifier(body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
    let mut auth: Map<String, Value> = serde_json::from_str(fields.get("auth")?.get()).ok()?;
    if auth.get("type")?.as_str()? != "m.login.password" || auth.contains_key("identifier") {
        return None;
    }
    let user = auth.get("user")?.as_str()?.to_owned();
    auth.insert("identifier".to_owned(), json!({ "type": "m.id.user", "user": user }));
    let auth = to_raw_value(&auth).ok()?;
    let mut fields = fields;
    fields.insert("auth".to_owned(), &auth);
    serde_json::to_vec(&fields).ok().map(Zeroizing::new)
}

/// Requires proof that the caller knows their password. `operation` names the operation of the request, with the device
/// or key that it affects: a proof for one operation is not valid for another.
pub(super) async fn require_password(
    app: &App,
    caller: &LocalDevice,
    operation: &str,
    auth: Option<&AuthData>,
    address: Option<IpAddr>,
) -> Result<(), ApiError> {
    require(app, Some(caller), operation, PASSWORD, auth, address).await.map(drop)
}

/// As [`require_password`], but application services need no authentication. For their users' devices and cross-signing
/// keys.
pub(super) async fn require_password_of_person(
    app: &App,
    caller: &LocalDevice,
    operation: &str,
    auth: Option<&AuthData>,
    address: Option<IpAddr>,
) -> Result<(), ApiError> {
    if caller.appservice.is_some() {
        return Ok(());
    }
    require_password(app, caller, operation, auth, address).await
}

/// Requires authentication by one of the given flows, also from a client without a session.
pub(super) async fn require(
    app: &App,
    caller: Option<&LocalDevice>,
    operation: &str,
    flows: &[Flow],
    auth: Option<&AuthData>,
    address: Option<IpAddr>,
) -> Result<Passed, ApiError> {
    if !matches!(auth, Some(AuthData::Password(_))) {
        return Ok(app
            .accounts
            .authenticate_interactively(caller, operation, flows, auth, address.map(network))
            .await?);
    }
    // Password guesses here are rate-limited as at the login.
    app.rate_limits.check(Action::Login, None, address)?;
    let guess = caller.map(|caller| app.rate_limits.guess(caller.user_id().as_str(), address)).transpose()?;
    let passed = app.accounts.authenticate_interactively(caller, operation, flows, auth, address.map(network)).await;
    if let Some(guess) = guess
        && !matches!(&passed, Err(InteractiveAuthError::Incomplete(info)) if is_refusal(info))
    {
        guess.give_back();
    }
    Ok(passed?)
}

/// Returns whether a password was checked and was wrong. Otherwise only other stages are left to complete.
fn is_refusal(info: &UiaaInfo) -> bool {
    info.auth_error.as_ref().is_some_and(|error| error.kind == ErrorKind::Forbidden)
}
