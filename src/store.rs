//! Storage.

pub mod ids;
