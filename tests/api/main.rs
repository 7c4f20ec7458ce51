//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod conversation;
mod discovery;
mod operator;
mod routes;
mod setup;
mod start;
mod stop;
