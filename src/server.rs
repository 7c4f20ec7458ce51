//! The running process: what it tells the system around it, and what it is told.

pub mod health;
pub mod metrics;
pub mod signals;
