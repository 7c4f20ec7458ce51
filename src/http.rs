//! HTTP: from a bound socket to a request, and back.
//!
//! Promises: no client can stop the accept loop; a request that changes data runs to its end even when its client hangs
//! up; shutdown answers the requests in flight before it closes anything, and takes at most [`shutdown::GRACE`].
//!
//! Reading order: [`listen`] binds, [`accept`] turns sockets into requests within the bounds of [`transport`],
//! [`tracked`] and [`cors`] are layers around the router, [`Reply`] and [`ApiError`] are the answers of an
//! [endpoint](crate::endpoint), [`shutdown`] stops everything.

pub mod listen;
pub mod tls;

pub mod accept;
pub mod transport;

pub mod tracked;

pub mod cors;

mod body;
mod compress;
mod error;
mod reply;

pub mod shutdown;

pub use accept::ClientAddress;
pub(crate) use body::{BodyBudget, FREE_BYTES, ParsedBody, Sender, read_body, too_many_parts};
pub use error::ApiError;
pub use reply::{RawJson, Reply};
pub(crate) use transport::ReceivingUser;
