//! The HTTP tests: one server per test, spoken to as a client or another server would.

mod harness;
