//! Endpoints: from an HTTP request to a typed request with a known caller, and to its handler.
//!
//! [`Routes`] finds the handler, [`Authed`] makes the typed request, [`Authenticate`] finds the caller.

mod authed;
mod authenticate;
mod errors;
mod routes;
mod waits_for;

pub use authed::Authed;
pub(crate) use authed::NoBody;
pub use authenticate::{Authenticate, ServiceToken};
pub use routes::Routes;
pub use waits_for::WaitsFor;
