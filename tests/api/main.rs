//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
mod harness;

mod account_data;
mod discovery;
mod filters;
mod presence;
mod push_rules;
mod receipts;
mod routes;
mod start;
mod typing;
