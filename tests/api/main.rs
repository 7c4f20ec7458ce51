//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod account_data;
mod conversation;
mod account;
mod discovery;
mod operator;
mod filters;
mod presence;
mod push_rules;
mod receipts;
mod routes;
mod setup;
mod session;
mod start;
mod typing;
mod stop;
