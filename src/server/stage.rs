//! The fallback page for a stage of interactive authentication that a client does not support ([spec]):
//! `/_matrix/client/v3/auth/{auth_type}/fallback/web`.
//!
//! Promise: a stage passed here counts as one passed through the API, but only for the session that the page was opened
//! with. The same limits apply to guesses.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#fallback

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{Method, StatusCode},
    routing::get,
};
use ruma::api::error::ErrorKind;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::landing::Page;
use crate::{
    account::interactive_auth::{Stage, StageError},
    app::App,
    http::{ApiError, ClientAddress, RawJson, read_body},
    limits::rate_limits::Action,
};

const PAGE: &str = include_str!("pages/stage.html");
const SCRIPT: &str = include_str!("pages/stage.js");

const PATHS: [&str; 2] =
    ["/_matrix/client/v3/auth/{auth_type}/fallback/web", "/_matrix/client/r0/auth/{auth_type}/fallback/web"];

pub(super) fn routes() -> impl Iterator<Item = (Method, &'static str)> {
    PATHS.into_iter().flat_map(|path| [(Method::GET, path), (Method::POST, path)])
}

/// The maximum body; a session and a password are far smaller.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The page, and the endpoint for its form.
pub(super) fn router(app: &App, client_address: Option<SocketAddr>) -> Router {
    let base_url = app.config.client_base_url(client_address);
    let page = Page::new(PAGE, SCRIPT, app.config.server_name.as_str(), &base_url);
    let show = get(async move |Path(auth_type): Path<String>| stage(&auth_type).map(|_| page));
    PATHS.iter().fold(Router::new(), |router, path| router.route(path, show.clone().post(pass))).with_state(app.clone())
}

#[derive(Deserialize)]
struct Sent {
    session: String,
    /// A password or a registration token; empty if the stage needs no proof.
    #[serde(default)]
    proof: Zeroizing<String>,
}

/// Passes the stage.
async fn pass(State(app): State<App>, Path(auth_type): Path<String>, request: Request) -> Result<RawJson, ApiError> {
    let stage = stage(&auth_type)?;
    let address = request.extensions().get::<ClientAddress>().and_then(|address| address.0);
    let action = if stage == Stage::Password { Action::Login } else { Action::Register };
    app.rate_limits.check(action, None, address)?;
    let limit_time = app.config.limits.request_time.duration();
    let body = Zeroizing::new(read_body(request.into_body(), MAX_BODY_BYTES, limit_time).await?.to_vec());
    let Ok(Sent { session, proof }) = serde_json::from_slice(&body) else {
        return Err(ApiError::bad_json("Send an object with session and proof."));
    };
    let owner = match stage {
        Stage::Password => app.accounts.owner_of_session(&session).await?,
        _ => None,
    };
    let guess = owner.as_ref().map(|user| app.rate_limits.guess(user.user_id.as_str(), address)).transpose()?;
    let passed = app.accounts.pass_stage(&session, stage, proof).await;
    if let Some(guess) = guess
        && !matches!(passed, Err(StageError::Refused))
    {
        guess.give_back();
    }
    passed?;
    Ok(RawJson("{}".into()))
}

fn stage(auth_type: &str) -> Result<Stage, ApiError> {
    match auth_type {
        "m.login.dummy" => Ok(Stage::Dummy),
        "m.login.password" => Ok(Stage::Password),
        "m.login.registration_token" => Ok(Stage::RegistrationToken),
        _ => Err(ApiError::not_found("This server has no such stage of authentication.")),
    }
}

impl From<StageError> for ApiError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::NoSession => Self::new(
                StatusCode::BAD_REQUEST,
                ErrorKind::Unknown,
                "This link has expired. Go back to your client and begin again.",
            ),
            StageError::Refused => Self::forbidden("That is not right."),
            StageError::Busy(error) => error.into(),
            StageError::Storage(error) => error.into(),
        }
    }
}
