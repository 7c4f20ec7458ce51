//! x
pub mod cli;
pub mod http;
pub mod server;
