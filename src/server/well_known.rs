//! `/.well-known/matrix/client` and `/.well-known/matrix/server`: the real addresses of this server ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-discovery

use std::net::SocketAddr;

use axum::{Router, http::Method, routing::get};
use bytes::Bytes;
use serde_json::json;

use crate::{
    config::Config,
    http::{ApiError, RawJson},
};

const CLIENT: &str = "/.well-known/matrix/client";
const SERVER: &str = "/.well-known/matrix/server";

pub(super) const ROUTES: [(Method, &str); 2] = [(Method::GET, CLIENT), (Method::GET, SERVER)];

/// Both documents; they only depend on the configuration.
pub(super) fn router(config: &Config, client_address: Option<SocketAddr>) -> Router {
    let client = json!({ "m.homeserver": { "base_url": config.client_base_url(client_address) } });
    let client = Bytes::from(client.to_string());
    let server = config.well_known_server().map(|server| Bytes::from(json!({ "m.server": server }).to_string()));
    Router::new().route(CLIENT, get(async move || RawJson(client))).route(
        SERVER,
        get(async move || {
            server.map(RawJson).ok_or_else(|| ApiError::not_found("This server does not talk to other servers."))
        }),
    )
}
