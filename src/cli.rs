//! What the `sabha` command can be asked to do.

pub mod healthcheck;
