//! The page that makes the first admin of an empty server: `/setup`, opened through the link that the server prints.
//!
//! Promise: the secret is in the link's fragment, so that no proxy and no log sees it; it is compared as a hash, and
//! works once.

use std::net::SocketAddr;

use axum::{
    Router,
    extract::{Request, State},
    http::Method,
    routing::get,
};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::landing::Page;
use crate::{
    account::register::RegisterError,
    app::App,
    http::{ApiError, ClientAddress, RawJson, read_body},
    limits::rate_limits::Action,
};

const PAGE: &str = include_str!("pages/setup.html");
const SCRIPT: &str = include_str!("pages/setup.js");

const PATH: &str = "/setup";

pub(super) const ROUTES: [(Method, &str); 2] = [(Method::GET, PATH), (Method::POST, PATH)];

/// The maximum body; a name and a password are far smaller.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// `GET /setup` and `POST /setup`.
pub(super) fn router(app: &App, client_address: Option<SocketAddr>) -> Router {
    let base_url = app.config.client_base_url(client_address);
    let page = Page::new(PAGE, SCRIPT, app.config.server_name.as_str(), &base_url);
    Router::new().route(PATH, get(async move || page).post(set_up)).with_state(app.clone())
}

#[derive(Deserialize)]
struct Wanted {
    secret: String,
    username: String,
    password: Zeroizing<String>,
}

/// Makes the first admin.
async fn set_up(State(app): State<App>, request: Request) -> Result<RawJson, ApiError> {
    let address = request.extensions().get::<ClientAddress>().and_then(|address| address.0);
    app.rate_limits.check(Action::Register, None, address)?;
    let limit_time = app.config.limits.request_time.duration();
    let body = Zeroizing::new(read_body(request.into_body(), MAX_BODY_BYTES, limit_time).await?.to_vec());
    let Ok(Wanted { secret, username, password }) = serde_json::from_slice(&body) else {
        return Err(ApiError::bad_json("Send an object with secret, username and password."));
    };
    match app.accounts.use_setup_secret(&secret, &username, password).await {
        Ok(user_id) => Ok(RawJson(json!({ "user_id": user_id }).to_string().into())),
        Err(RegisterError::SetupSecret) => Err(ApiError::forbidden(
            "This link was used, has expired, or an administrator exists. As long as there is no account, a restart of the \
             server prints a new link; after that, use: sabha user create NAME --admin",
        )),
        Err(error) => Err(error.into()),
    }
}
