//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod account;
mod discovery;
mod routes;
mod session;
mod start;
