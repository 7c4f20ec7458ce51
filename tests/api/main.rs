//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod account;
mod account_data;
mod backup;
mod conversation;
mod discovery;
mod filters;
mod keys;
mod operator;
mod presence;
mod push_rules;
mod receipts;
mod routes;
mod session;
mod setup;
mod start;
mod stop;
mod to_device;
mod typing;
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
