//! The server-server API ([spec]): an endpoint a file, folders as in [`ruma::api::federation`].
//!
//! Served on listeners with the resource `federation`, when `federation.enabled`. A handler gets a request whose signature
//! was verified ([`crate::http::Authed`]) and whose origin it knows; it answers only about what is ours. What exchanges events is
//! not here yet, so other servers cannot take part in our rooms, nor we in theirs.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/

mod directory;
mod discovery;
mod query;

use crate::http::Routes;

/// All endpoints.
pub fn routes() -> Routes {
    Routes::default().merge(directory::routes()).merge(discovery::routes()).merge(query::routes())
}
