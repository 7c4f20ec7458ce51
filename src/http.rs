//! HTTP: from a bound socket to a typed request with a known caller, and back.
//!
//! Promises: no client can stop the accept loop; a request that changes data runs to its end even when its client hangs
//! up; shutdown answers the requests in flight before it closes anything, and takes at most [`shutdown::GRACE`].
//!
//! Reading order: [`listen`] binds, [`accept`] turns sockets into requests within the bounds of [`transport`],
//! [`tracked`] and [`cors`] are layers around the router, [`Routes`] finds the handler, [`Authed`] makes the typed
//! request, [`Reply`] and [`ApiError`] are its answers, [`shutdown`] stops everything.

pub mod listen;
pub mod tls;

pub mod accept;
pub mod transport;

pub mod tracked;

pub mod cors;

mod authed;
mod body;
mod compress;
mod error;
mod network;
mod rate_limit;
mod reply;
mod routes;

pub mod shutdown;

pub use accept::ClientAddress;
pub(crate) use authed::NoBody;
pub use authed::{Authed, Authenticate, ServiceToken};
pub(crate) use body::{BodyBudget, read_body};
pub use error::ApiError;
pub use network::network;
pub use rate_limit::{Action, Guess, RateLimits};
pub use reply::{RawJson, Reply};
pub use routes::Routes;
