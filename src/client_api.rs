//! The client-server API. Folders and files are named as in `ruma::api::client`; a file serves one endpoint.
//!
//! A handler only translates: a typed request in, one call of a service, a typed answer out.

mod account;
mod backup;
mod config;
mod device;
mod discovery;
mod filter;
mod keys;
mod presence;
mod profile;
mod push;
mod read_marker;
mod receipt;
mod session;
mod sync;
mod tag;
mod to_device;
mod typing;
mod uiaa;

use crate::http::Routes;

/// All endpoints of the client-server API.
pub fn routes() -> Routes {
    Routes::default()
        .merge(account::routes())
        .merge(backup::routes())
        .merge(config::routes())
        .merge(device::routes())
        .merge(discovery::routes())
        .merge(filter::routes())
        .merge(keys::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(push::routes())
        .merge(read_marker::routes())
        .merge(receipt::routes())
        .merge(sync::routes())
        .merge(session::routes())
        .merge(tag::routes())
        .merge(to_device::routes())
        .merge(typing::routes())
}
