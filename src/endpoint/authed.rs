//! Turns an HTTP request into a typed request with a known caller.
//!
//! The request type names its path, method and authentication, so no check can be forgotten: an endpoint for users gets
//! a [`LocalDevice`], one for other servers a [`RemoteServer`](crate::remote::RemoteServer), a public one `()`.

use std::{net::IpAddr, sync::Arc};

use axum::{
    RequestExt as _,
    body::HttpBody as _,
    extract::{FromRequest, RawPathParams, Request},
    http::{StatusCode, Uri, request::Parts as RequestParts},
};
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _,
    auth_scheme::{AccessToken, AuthScheme},
    error::{DeserializationError, ErrorKind, FromHttpRequestError},
};
use tracing::{Instrument as _, debug_span};

use super::{Authenticate, WaitsFor};
use crate::{
    account::LocalDevice,
    app::App,
    http::{ApiError, ClientAddress, ParsedBody, ReceivingUser},
    json::{self, Parts},
    limits::rate_limits::Action,
};

/// A typed request and its caller.
pub struct Authed<R: IncomingRequest>
where
    R::Authentication: Authenticate,
{
    pub caller: <R::Authentication as Authenticate>::Caller,
    pub request: R,
    /// The address that the request came from, if known.
    pub address: Option<IpAddr>,
    /// The memory of the request, held until its handler ends.
    pub(super) parsed: Option<ParsedBody>,
}

impl<R> FromRequest<App> for Authed<R>
where
    R: IncomingRequest + Send + 'static,
    R::Authentication: Authenticate,
    <R::Authentication as AuthScheme>::Output: Send,
{
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ApiError> {
        let address = address_of(&request);
        let params = request
            .extract_parts_with_state::<RawPathParams, App>(app)
            .await
            .map_err(|error| ApiError::invalid_param(error.to_string()))?;
        // In the order of the path and percent-decoded, as ruma expects them.
        let path_args: Vec<&str> = params.iter().map(|(_, value)| value).collect();
        check_no_nul(request.uri(), &path_args)?;

        let credentials = R::Authentication::extract_authentication(&request)
            .map_err(|error| R::Authentication::missing(error.into().to_string()))?;
        let authenticate = R::Authentication::authenticate(app, credentials, address);
        let caller = authenticate.instrument(debug_span!("authenticate")).await?;
        let caller = match R::Authentication::user(&caller) {
            Some(device) if device.appservice.is_some() => {
                // Boxed, because few requests have this step and all would need its space.
                Box::pin(R::Authentication::assert_identity(app, caller, request.uri(), address)).await?
            }
            _ => caller,
        };
        admit::<R::Authentication>(app, &request, &caller, address)?;

        let (parts, body) = request.into_parts();
        let sender = R::Authentication::sender(&caller, address);
        let (body, mut held) = app.bodies.read(body, sender).await?;
        let proven = http::Request::from_parts(parts, body);
        R::Authentication::prove(app, &caller, &proven).await?;
        let (mut parts, body) = proven.into_parts();
        // Ruma requires an object where clients often send no body.
        let body: &[u8] = if body.is_empty() && parts.method != http::Method::GET {
            parts.extensions.insert(NoBody);
            b"{}"
        } else {
            &body
        };
        let mut parsed = None;
        // JSON that is not UTF-8 would pass where no code reads the text. Media files are not JSON.
        if !parts.uri.path().starts_with("/_matrix/media/") {
            let Ok(json) = std::str::from_utf8(body) else {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::NotJson, "The request is not UTF-8."));
            };
            let counted = if R::Authentication::CHECKS_BODY {
                let counted = check_body(json)?;
                check_is_object::<R>(json, &parts, &path_args)?;
                counted
            } else {
                json::check(json).0
            };
            let parsed_bytes = counted.parsed_bytes(json.len());
            if let Some(waits_for) = parts.extensions.get::<WaitsFor>() {
                waits_for.check(parsed_bytes)?;
            } else if parts.method != http::Method::GET {
                // The body of a GET is not kept. A `/sync` that waits for minutes must not hold memory for it.
                parsed = held.parse(json.len(), parsed_bytes).await?;
            }
        }
        let request = R::try_from_http_request(http::Request::from_parts(parts, body), &path_args)
            .map_err(|error| explain(&error, body))?;
        Ok(Self { caller, request, address, parsed })
    }
}

impl<R> Authed<R>
where
    R: IncomingRequest<Authentication = AccessToken>,
    <AccessToken as AuthScheme>::Output: Send,
{
    /// The caller of a request without a body, if their session is cached and they act as themselves.
    pub fn caller_in_memory(request: &Request, app: &App) -> Option<Arc<LocalDevice>> {
        let token = AccessToken::extract_authentication(request).ok().filter(|_| request.body().is_end_stream())?;
        let caller = app.accounts.authenticate_from_memory(&token, address_of(request));
        caller.filter(|caller| caller.appservice.is_none())
    }

    /// As [`FromRequest::from_request`], for a request of [`Self::caller_in_memory`] without path arguments: without a
    /// future, which would be larger than all that happens here.
    pub fn of_caller(request: Request, app: &App, caller: Arc<LocalDevice>) -> Result<Self, ApiError> {
        let address = address_of(&request);
        check_no_nul(request.uri(), &[])?;
        admit::<AccessToken>(app, &request, &caller, address)?;
        let (parts, _) = request.into_parts();
        let request = R::try_from_http_request(http::Request::from_parts(parts, &[] as &[u8]), &[] as &[&str])
            .map_err(|error| explain(&error, &[]))?;
        Ok(Self { caller, request, address, parsed: None })
    }
}

fn address_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ClientAddress>().and_then(|address| address.0)
}

/// Refuses a NUL: not every database can store or find one, and no valid name contains one.
fn check_no_nul(uri: &Uri, path_args: &[&str]) -> Result<(), ApiError> {
    let has_nul =
        path_args.iter().any(|value| value.contains('\0')) || uri.query().is_some_and(|query| query.contains("%00"));
    if has_nul { Err(ApiError::invalid_param("A path and its parameters hold no NUL.")) } else { Ok(()) }
}

/// Notes who receives the answer, and counts the request against the rate limits.
fn admit<A: Authenticate>(
    app: &App,
    request: &Request,
    caller: &A::Caller,
    address: Option<IpAddr>,
) -> Result<(), ApiError> {
    let user = A::user(caller).map(|device| device.user.nid);
    if let Some(user) = user
        && let Some(receiving) = request.extensions().get::<ReceivingUser>()
    {
        receiving.set(user);
    }
    if !A::is_exempt(caller) {
        let action = request.extensions().get::<Action>().copied().unwrap_or(Action::Other);
        app.rate_limits.check(action, user, address)?;
    }
    Ok(())
}

/// Marks a request that came without a body where one was expected. It is read as an empty object, except by request
/// types that check for this mark.
#[derive(Clone, Copy)]
pub(crate) struct NoBody;

/// Refuses JSON that other clients could not read. Returns the parts of all other text.
fn check_body(json: &str) -> Result<Parts, ApiError> {
    match json::check(json) {
        (_, Err(unfit)) if serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok() => {
            Err(ApiError::bad_json(format!("The request cannot be passed on to other clients: {unfit}.")))
        }
        // Text that is not JSON is parsed until that shows, and takes memory until then. `explain` gives the error.
        (parts, _) => Ok(parts),
    }
}

/// Refuses JSON that is not an object, since no client endpoint expects any. serde would read an array as an object
/// with its fields in order. Endpoints without a JSON body ignore the body.
fn check_is_object<R: IncomingRequest>(json: &str, parts: &RequestParts, path_args: &[&str]) -> Result<(), ApiError> {
    if json.is_empty() || json.trim_ascii_start().starts_with('{') {
        return Ok(());
    }
    let unreadable = http::Request::from_parts(parts.clone(), b"no JSON".as_slice());
    let reads_json = R::try_from_http_request(unreadable, path_args).is_err();
    // `explain` gives the error for text that is not JSON.
    if reads_json && serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok() {
        return Err(ApiError::bad_json("The request must be a JSON object."));
    }
    Ok(())
}

/// Tells a client that sent no JSON from one that sent the wrong JSON.
fn explain(error: &FromHttpRequestError, body: &[u8]) -> ApiError {
    if !body.is_empty() && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
        return ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::NotJson, "The request is not valid JSON.");
    }
    let text = error.to_string();
    let kind = match error {
        _ if text.contains("missing field") => ErrorKind::MissingParam,
        // Path and query are parsed like forms; only the body is JSON.
        FromHttpRequestError::Deserialization(DeserializationError::Query(_) | DeserializationError::Ident(_)) => {
            ErrorKind::InvalidParam
        }
        _ => ErrorKind::BadJson,
    };
    ApiError::new(StatusCode::BAD_REQUEST, kind, text)
}
