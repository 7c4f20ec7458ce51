//! Sabha, a Matrix homeserver.

pub mod account;
pub mod admin_api;
pub mod app;
pub mod bus;
pub mod cli;
pub mod client_api;
pub mod clock;
pub mod config;
pub mod ephemeral;
pub mod glob;
pub mod http;
pub mod keys;
pub mod push;
pub mod room;
pub mod server;
pub mod store;
pub mod sync;
