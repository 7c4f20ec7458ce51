//! Sync: what happened since the client last asked ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#syncing

pub mod token;
