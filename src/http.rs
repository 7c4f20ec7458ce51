//! Connections: from a bound socket to a request on an `axum::Router`, and back to silence.
//!
//! Nothing here knows what Matrix is, except the error body of a panic ([`tracked`]) and the browser headers ([`cors`]).
//! Promises: no client can stop the accept loop; a request that changes something runs to its end even when its client
//! hangs up; and stopping answers what is in flight before it closes anything, for at most [`shutdown::GRACE`].
//!
//! Read in this order: [`listen`] binds, [`accept`] turns sockets into requests, [`tracked`] and [`cors`] are layers
//! around the router, [`shutdown`] ends it all.

pub mod listen;
pub mod tls;

pub mod accept;

pub mod tracked;

pub mod cors;

pub mod shutdown;
