//! Sabha, a Matrix homeserver.
pub mod store;
