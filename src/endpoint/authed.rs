//! Turns an HTTP request into a typed request with a known caller.
//!
//! The request type names its path, method and authentication, so no check can be forgotten: an endpoint for users gets
//! a [`LocalDevice`], one for other servers a [`RemoteServer`], a public one `()`.

use std::{net::IpAddr, sync::Arc};

use axum::{
    RequestExt as _,
    body::HttpBody as _,
    extract::{FromRequest, Query, RawPathParams, Request},
    http::{StatusCode, Uri, request::Parts},
};
use ruma::api::{
    IncomingRequest, IncomingRequestExt as _,
    auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken, NoAuthentication,
    },
    error::{DeserializationError, ErrorKind, FromHttpRequestError},
    federation::authentication::{ServerSignatures, XMatrix},
};

use tracing::{Instrument as _, debug_span};

use crate::{
    account::{AuthenticateError, LocalDevice, appservice::Asserted},
    app::App,
    appservice::Appservice,
    http::{ApiError, ClientAddress, ReceivingUser, Sender},
    limits::rate_limits::Action,
    remote::{KeyError, RemoteServer, UnverifiedError},
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
}

/// An authentication scheme that turns the credentials of a request into a caller.
pub trait Authenticate: AuthScheme {
    type Caller: Send;

    /// True if the body is checked as a whole ([`crate::json`]). JSON from clients is passed on to others unchanged;
    /// the events of another server are checked one by one.
    const CHECKS_BODY: bool = true;

    fn authenticate(
        app: &App,
        credentials: Self::Output,
        address: Option<IpAddr>,
    ) -> impl Future<Output = Result<Self::Caller, ApiError>> + Send;

    /// The user to count this request for, if there is one.
    fn user(caller: &Self::Caller) -> Option<&LocalDevice>;

    /// The sender of the request's body, as far as known before the body is read. Strangers may send only small bodies.
    fn sender(caller: &Self::Caller, address: Option<IpAddr>) -> Sender {
        Self::user(caller).map_or(Sender::Stranger(address), |device| Sender::User(device.user.nid))
    }

    /// Returns whether the caller is exempt from rate limits.
    fn is_exempt(caller: &Self::Caller) -> bool {
        Self::user(caller).is_some_and(LocalDevice::is_exempt_from_rate_limits)
    }

    /// Returns the identity that the caller acts as. An application service names a user in the query ([spec]);
    /// everyone else acts as themselves.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
    fn assert_identity(
        app: &App,
        caller: Self::Caller,
        uri: &Uri,
        address: Option<IpAddr>,
    ) -> impl Future<Output = Result<Self::Caller, ApiError>> + Send {
        let _ = (app, uri, address);
        async { Ok(caller) }
    }

    /// The error for a request without credentials.
    fn missing(message: String) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, ErrorKind::MissingToken, message)
    }

    /// Verifies a proof that needs the whole request, before any of it is trusted.
    fn prove(
        app: &App,
        caller: &Self::Caller,
        request: &http::Request<bytes::Bytes>,
    ) -> impl Future<Output = Result<(), ApiError>> + Send {
        let _ = (app, caller, request);
        async { Ok(()) }
    }
}

impl Authenticate for AccessToken {
    type Caller = Arc<LocalDevice>;

    async fn authenticate(app: &App, token: String, address: Option<IpAddr>) -> Result<Self::Caller, ApiError> {
        by_token(app, &token, address).await
    }

    async fn assert_identity(
        app: &App,
        caller: Self::Caller,
        uri: &Uri,
        address: Option<IpAddr>,
    ) -> Result<Self::Caller, ApiError> {
        let Some(appservice) = &caller.appservice else { return Ok(caller) };
        let Query(asserted) = Query::<Asserted>::try_from_uri(uri)
            .map_err(|error| ApiError::invalid_param(format!("The query names nobody: {error}.")))?;
        if asserted == Asserted::default() {
            return Ok(caller);
        }
        Ok(app.accounts.act_as(appservice, asserted, address).await?)
    }

    fn user(caller: &Self::Caller) -> Option<&LocalDevice> {
        Some(caller)
    }
}

impl Authenticate for AccessTokenOptional {
    type Caller = Option<Arc<LocalDevice>>;

    async fn authenticate(app: &App, token: Option<String>, address: Option<IpAddr>) -> Result<Self::Caller, ApiError> {
        match token {
            Some(token) => by_token(app, &token, address).await.map(Some),
            None => Ok(None),
        }
    }

    async fn assert_identity(
        app: &App,
        caller: Self::Caller,
        uri: &Uri,
        address: Option<IpAddr>,
    ) -> Result<Self::Caller, ApiError> {
        match caller {
            Some(caller) => Ok(Some(AccessToken::assert_identity(app, caller, uri, address).await?)),
            None => Ok(None),
        }
    }

    fn user(caller: &Self::Caller) -> Option<&LocalDevice> {
        caller.as_deref()
    }
}

/// The device that holds the token. An uncached token counts against its address's rate limit before we query the
/// database. A client has few valid tokens that are not cached, so this slows only guesses and clients that keep
/// sending an old token.
async fn by_token(app: &App, token: &str, address: Option<IpAddr>) -> Result<Arc<LocalDevice>, ApiError> {
    if let Some(device) = app.accounts.authenticate_from_memory(token, address) {
        return Ok(device);
    }
    if let Some(appservice) = app.appservices.by_token(token) {
        return Ok(app.accounts.act_as(appservice, Asserted::default(), address).await?);
    }
    app.rate_limits.check(Action::Other, None, address)?;
    Ok(app.accounts.authenticate(token, address).await?)
}

/// The token of a request to register or log in, where only an application service's token counts. A client that sends
/// an old access token along is not refused.
pub enum ServiceToken {
    Missing,
    Unknown,
    Known(Arc<Appservice>),
}

impl ServiceToken {
    /// Returns the application service that makes the request.
    ///
    /// # Errors
    /// `M_MISSING_TOKEN` or `M_UNKNOWN_TOKEN` for anyone else.
    pub fn require(self) -> Result<Arc<Appservice>, ApiError> {
        match self {
            Self::Known(appservice) => Ok(appservice),
            Self::Unknown => Err(AuthenticateError::Unknown.into()),
            Self::Missing => {
                let message = "This needs the token of an application service.";
                Err(ApiError::new(StatusCode::UNAUTHORIZED, ErrorKind::MissingToken, message))
            }
        }
    }
}

impl Authenticate for AppserviceTokenOptional {
    type Caller = ServiceToken;

    async fn authenticate(app: &App, token: Option<String>, _: Option<IpAddr>) -> Result<ServiceToken, ApiError> {
        Ok(match token.map(|token| app.appservices.by_token(&token).cloned()) {
            None => ServiceToken::Missing,
            Some(None) => ServiceToken::Unknown,
            Some(Some(appservice)) => ServiceToken::Known(appservice),
        })
    }

    fn user(_: &ServiceToken) -> Option<&LocalDevice> {
        None
    }

    fn sender(caller: &ServiceToken, address: Option<IpAddr>) -> Sender {
        match caller {
            ServiceToken::Known(_) => Sender::Appservice,
            ServiceToken::Missing | ServiceToken::Unknown => Sender::Stranger(address),
        }
    }

    fn is_exempt(caller: &ServiceToken) -> bool {
        matches!(caller, ServiceToken::Known(_))
    }
}

/// A request of another server. Its header is checked before the body is read, its signature after.
impl Authenticate for ServerSignatures {
    type Caller = (RemoteServer, XMatrix);

    const CHECKS_BODY: bool = false;

    async fn authenticate(app: &App, header: XMatrix, _: Option<IpAddr>) -> Result<(RemoteServer, XMatrix), ApiError> {
        let federation = app.federation.as_ref().ok_or_else(ApiError::unrecognized)?;
        federation.check_header(&header)?;
        Ok((RemoteServer { origin: header.origin.clone() }, header))
    }

    fn user(_: &Self::Caller) -> Option<&LocalDevice> {
        None
    }

    /// The signature covers the body, so the sender is not proven yet.
    fn sender(_: &Self::Caller, address: Option<IpAddr>) -> Sender {
        Sender::Unproven(address)
    }

    fn missing(message: String) -> ApiError {
        ApiError::unauthorized(message)
    }

    async fn prove(
        app: &App,
        (_, header): &Self::Caller,
        request: &http::Request<bytes::Bytes>,
    ) -> Result<(), ApiError> {
        let federation = app.federation.as_ref().ok_or_else(ApiError::unrecognized)?;
        Ok(federation.verify(header, request).await?)
    }
}

impl From<UnverifiedError> for ApiError {
    fn from(error: UnverifiedError) -> Self {
        match error {
            UnverifiedError::Key(KeyError::Storage(error)) => error.into(),
            UnverifiedError::OtherDestination
            | UnverifiedError::FromOurselves
            | UnverifiedError::Key(_)
            | UnverifiedError::Signature => {
                tracing::debug!(%error, "a request is not believed");
                Self::unauthorized(format!("The request is not believed: {error}."))
            }
        }
    }
}

macro_rules! public {
    ($($scheme:ty),+) => {$(
        impl Authenticate for $scheme {
            type Caller = ();

            async fn authenticate(_: &App, (): (), _: Option<IpAddr>) -> Result<(), ApiError> {
                Ok(())
            }

            fn user((): &()) -> Option<&LocalDevice> {
                None
            }
        }
    )+};
}
public!(NoAuthentication, NoAccessToken);

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
        let (body, _held) = app.bodies.read(body, sender).await?;
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
        // JSON that is not UTF-8 would pass where no code reads the text. Media files are not JSON.
        if !parts.uri.path().starts_with("/_matrix/media/") {
            let Ok(json) = std::str::from_utf8(body) else {
                return Err(ApiError::new(StatusCode::BAD_REQUEST, ErrorKind::NotJson, "The request is not UTF-8."));
            };
            if R::Authentication::CHECKS_BODY {
                check_body(json)?;
                check_is_object::<R>(json, &parts, &path_args)?;
            }
        }
        let request = R::try_from_http_request(http::Request::from_parts(parts, body), &path_args)
            .map_err(|error| explain(&error, body))?;
        Ok(Self { caller, request, address })
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
        Ok(Self { caller, request, address })
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

/// Refuses JSON that other clients could not read.
fn check_body(json: &str) -> Result<(), ApiError> {
    match crate::json::check(json) {
        // `explain` gives the error for text that is not JSON.
        Err(unfit) if serde_json::from_str::<serde::de::IgnoredAny>(json).is_ok() => {
            Err(ApiError::bad_json(format!("The request cannot be passed on to other clients: {unfit}.")))
        }
        _ => Ok(()),
    }
}

/// Refuses JSON that is not an object, since no client endpoint expects any. serde would read an array as an object
/// with its fields in order. Endpoints without a JSON body ignore the body.
fn check_is_object<R: IncomingRequest>(json: &str, parts: &Parts, path_args: &[&str]) -> Result<(), ApiError> {
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
