//! Authentication: from the credentials of a request to its caller, by the scheme that the request type names.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::Query,
    http::{StatusCode, Uri},
};
use ruma::api::{
    auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, NoAccessToken, NoAuthentication,
    },
    error::ErrorKind,
    federation::authentication::{ServerSignatures, XMatrix},
};

use crate::{
    account::{AuthenticateError, LocalDevice, appservice::Asserted},
    app::App,
    appservice::Appservice,
    http::{ApiError, Sender},
    limits::rate_limits::Action,
    remote::{KeyError, RemoteServer, UnverifiedError},
};

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
