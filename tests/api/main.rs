//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod backup;
mod discovery;
mod keys;
mod operator;
mod routes;
mod setup;
mod start;
mod to_device;
