//! Sabha, a Matrix homeserver.

pub mod room;
pub mod store;
