//! `GET /_matrix/client/versions` ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions

use std::collections::BTreeMap;

use axum::extract::State;
use ruma::api::client::discovery::get_supported_versions::{Request, Response};

use crate::{
    app::App,
    endpoint::Authed,
    http::{ApiError, Reply},
};

/// Versions that clients look for, oldest first.
const VERSIONS: [&str; 22] = [
    "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// The unstable features that this server has and that clients look for.
const UNSTABLE_FEATURES: [&str; 2] = ["org.matrix.msc4222", "org.matrix.e2e_cross_signing"];

/// The versions of the specification that clients may rely on.
pub(super) async fn handle(State(_): State<App>, _: Authed<Request>) -> Result<Reply<Response>, ApiError> {
    let mut response = Response::new(VERSIONS.iter().map(|version| (*version).to_owned()).collect());
    response.unstable_features =
        UNSTABLE_FEATURES.iter().map(|feature| ((*feature).to_owned(), true)).collect::<BTreeMap<_, _>>();
    Ok(Reply(response))
}
