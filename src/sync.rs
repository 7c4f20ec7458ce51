//! Sync: the changes since the client's last request ([spec]).
//!
//! Sync only reads. The marks of a user name the rooms with news ([`visit`]); it looks at these, and copies events into
//! the answer as they were rendered. A request that finds nothing waits until the [bus](crate::bus) wakes it, and costs no database
//! statement.
//!
//! Reading order: [`token`], [`v3`] (the request from start to answer), [`visit`], then the parts of the answer.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#syncing

pub mod device_lists;
pub mod json;
pub mod token;
pub mod v3;
pub mod visit;
