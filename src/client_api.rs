//! The client-server API. Folders and files are named as in `ruma::api::client`; a file serves one endpoint.
//!
//! A handler only translates: a typed request in, one call of a service, a typed answer out.

mod account;
mod device;
mod discovery;
mod profile;
mod session;
mod uiaa;

use crate::http::Routes;

/// All endpoints of the client-server API.
pub fn routes() -> Routes {
    Routes::default()
        .merge(account::routes())
        .merge(device::routes())
        .merge(discovery::routes())
        .merge(profile::routes())
        .merge(session::routes())
}
