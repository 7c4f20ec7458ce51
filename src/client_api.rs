//! The client-server API. Folders and files are named as in `ruma::api::client`; a file serves one endpoint.
//!
//! A handler only translates: a typed request in, one call of a service, a typed answer out.

mod discovery;

use crate::http::Routes;

/// All endpoints of the client-server API.
pub fn routes() -> Routes {
    Routes::default().merge(discovery::routes())
}
