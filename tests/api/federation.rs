//! Two servers that talk to each other over TLS on loopback, with the test's own certificate authority ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/

mod answers;
mod asking;
mod keys;
mod network;
mod peers;
mod rotation;
mod transport;
