//! x

pub mod config;
pub mod cli;
