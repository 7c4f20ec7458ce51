//! Endpoints: from an HTTP request to a typed request with a known caller, and to its handler.
//!
//! [`Routes`] finds the handler, [`Authed`] makes the typed request.

mod authed;
mod errors;
mod routes;

pub(crate) use authed::NoBody;
pub use authed::{Authed, Authenticate, ServiceToken};
pub use routes::Routes;
