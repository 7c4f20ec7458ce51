//! HTTP: from a connection to a typed request, and back.

mod authed;
mod error;
mod rate_limit;
mod reply;
mod routes;

pub use authed::{Authed, Authenticate};
pub(crate) use authed::read_body;
pub use error::ApiError;
pub use rate_limit::{Action, RateLimits};
pub use reply::{RawJson, Reply};
pub use routes::Routes;
