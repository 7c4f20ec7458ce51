//! Two servers that talk to each other over TLS on loopback, under a certificate authority of the test's own ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/

mod answers;
mod asking;
mod network;
mod peers;
