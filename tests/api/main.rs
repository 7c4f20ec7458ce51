//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod account;
mod account_data;
mod aliases;
mod context;
mod conversation;
mod create_room;
mod discovery;
mod filters;
mod membership;
mod messages;
mod operator;
mod presence;
mod push_rules;
mod receipts;
mod redaction;
mod routes;
mod send;
mod session;
mod setup;
mod start;
mod state;
mod stop;
mod typing;
mod visibility;
