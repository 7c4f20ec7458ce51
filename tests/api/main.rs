//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
#[allow(dead_code, reason = "a vocabulary for tests, of which not every word is used all the time")]
mod harness;

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
mod stop;
mod typing;
