//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod backup;
mod discovery;
mod keys;
mod account;
mod account_data;
mod conversation;
mod discovery;
mod filters;
mod operator;
mod presence;
mod push_rules;
mod receipts;
mod routes;
mod session;
mod setup;
mod start;
mod to_device;
mod stop;
mod typing;
