//! The one part of Synapse's admin API that tools and test suites rely on everywhere: [registration with a shared
//! secret][register]. It is not part of the specification, and served only if `registration.shared_secret` is configured.
//!
//! [register]: https://element-hq.github.io/synapse/latest/admin_api/register_api.html

use axum::extract::Request;
use http::{Method, StatusCode};
use ruma::api::error::ErrorKind;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    account::{
        NewSession,
        profiles::MAX_NAME_BYTES,
        shared_secret::{SharedSecretError, Wanted},
    },
    app::App,
    endpoint::Routes,
    http::{ApiError, ClientAddress, RawJson, read_body},
    limits::rate_limits::Action,
};

const PATH: &str = "/_synapse/admin/v1/register";

/// The maximum body; a name and a password are far smaller.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// Synapse's types of users. Synapse counts them separately in its statistics; here they are ordinary users.
const USER_TYPES: [&str; 2] = ["bot", "support"];

/// The routes that are served while there is a shared secret.
pub fn routes() -> Routes {
    Routes::default().serve_raw(Method::GET, PATH, Action::Register, nonce).serve_raw(
        Method::POST,
        PATH,
        Action::Register,
        register,
    )
}

/// Returns a nonce, to be used within a minute.
async fn nonce(app: App, request: Request) -> Result<RawJson, ApiError> {
    limit(&app, &request)?;
    let nonce = app.accounts.shared_secret_nonce().ok_or_else(ApiError::unrecognized)?;
    Ok(RawJson(json!({ "nonce": nonce }).to_string().into()))
}

#[derive(Deserialize)]
struct Body {
    nonce: String,
    username: String,
    password: Zeroizing<String>,
    mac: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    displayname: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
}

/// Makes an account, and its first session.
async fn register(app: App, request: Request) -> Result<RawJson, ApiError> {
    limit(&app, &request)?;
    let limit_time = app.config.limits.request_time.duration();
    let body = Zeroizing::new(read_body(request.into_body(), MAX_BODY_BYTES, limit_time).await?.to_vec());
    let body: Body = serde_json::from_slice(&body).map_err(|_| {
        ApiError::bad_json("Send an object with nonce, username, password, mac and, if it is one, admin: true.")
    })?;
    if body.user_type.as_deref().is_some_and(|kind| !USER_TYPES.contains(&kind)) {
        return Err(ApiError::invalid_param("user_type is bot, support or left out."));
    }
    if body.displayname.as_ref().is_some_and(|name| name.len() > MAX_NAME_BYTES) {
        return Err(ApiError::invalid_param(format!("A display name has at most {MAX_NAME_BYTES} bytes.")));
    }
    let wanted = Wanted {
        nonce: body.nonce,
        username: body.username,
        password: body.password,
        admin: body.admin,
        user_type: body.user_type,
        displayname: body.displayname.filter(|name| !name.is_empty()),
        mac: body.mac,
        session: (!body.inhibit_login).then(NewSession::default),
    };
    let (user_id, session) = app.accounts.register_by_shared_secret(wanted).await?;
    let mut answer = json!({ "user_id": user_id, "home_server": app.config.server_name });
    if let Some(session) = session {
        answer["device_id"] = session.device_id.as_str().into();
        answer["access_token"] = session.secrets.access_token.into();
    }
    Ok(RawJson(answer.to_string().into()))
}

/// Limits guesses of a MAC to the rate of registration.
fn limit(app: &App, request: &Request) -> Result<(), ApiError> {
    let address = request.extensions().get::<ClientAddress>().and_then(|address| address.0);
    Ok(app.rate_limits.check(Action::Register, None, address)?)
}

impl From<SharedSecretError> for ApiError {
    fn from(error: SharedSecretError) -> Self {
        match error {
            SharedSecretError::Nonce => {
                let message = "The nonce is unknown, has expired or was used.";
                Self::new(StatusCode::BAD_REQUEST, ErrorKind::Unknown, message)
            }
            SharedSecretError::Mac => Self::forbidden("The MAC is wrong."),
            SharedSecretError::Register(error) => error.into(),
        }
    }
}
