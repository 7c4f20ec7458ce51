//! Sync: what happened since the client last asked ([spec]).
//!
//! Sync only reads. What is new for a user is found by comparing positions in memory; events are spliced into the answer
//! as they were rendered. A request that finds nothing parks until the [bus](crate::bus) wakes it, and costs no database
//! statement.
//!
//! Reading order: [`token`], [`v3`] (the request from start to answer), then the parts of the answer.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#syncing

pub mod device_lists;
pub mod filter;
pub mod json;
pub mod large;
pub mod lazy;
pub mod parked;
pub mod token;
pub mod v3;
