//! The server-server API ([spec]): one file for each endpoint, in folders as in [`ruma::api::federation`].
//!
//! Served on listeners with the resource `federation`, when `federation.enabled`. A handler gets a request whose
//! signature was verified ([`crate::endpoint::Authed`]), with its origin. It answers only about our own users, rooms and
//! keys. The endpoints that exchange events are not here yet, so other servers cannot take part in our rooms, nor we in
//! theirs.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/

mod directory;
mod discovery;
mod query;

use crate::endpoint::Routes;

/// All endpoints.
pub fn routes() -> Routes {
    Routes::default().merge(directory::routes()).merge(discovery::routes()).merge(query::routes())
}
