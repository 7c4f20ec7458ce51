//! The client-server API. Folders and files are named as in `ruma::api::client`; a file serves one endpoint.
//!
//! A handler only translates: a typed request in, one call of a service, a typed answer out.

mod config;
mod discovery;
mod filter;
mod presence;
mod push;
mod read_marker;
mod receipt;
mod sync;
mod tag;
mod typing;

use crate::http::Routes;

/// All endpoints of the client-server API.
pub fn routes() -> Routes {
    Routes::default()
        .merge(config::routes())
        .merge(discovery::routes())
        .merge(filter::routes())
        .merge(presence::routes())
        .merge(push::routes())
        .merge(read_marker::routes())
        .merge(receipt::routes())
        .merge(sync::routes())
        .merge(tag::routes())
        .merge(typing::routes())
}
