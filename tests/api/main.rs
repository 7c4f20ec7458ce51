//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod aliases;
mod context;
mod create_room;
mod discovery;
mod membership;
mod messages;
mod operator;
mod redaction;
mod routes;
mod send;
mod setup;
mod start;
mod state;
mod visibility;
