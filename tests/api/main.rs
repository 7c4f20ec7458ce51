//! The HTTP tests: one server per test, spoken to as a client or another server would.

#[macro_use]
#[allow(dead_code, reason = "a vocabulary for tests, of which not every word is used all the time")]
mod harness;

mod account;
mod account_data;
mod aliases;
mod appservices;
mod backup;
mod commit_steps;
mod context;
mod conversation;
mod create_room;
mod device_lists;
mod discovery;
mod docs;
mod federation;
mod filters;
mod ignored_users;
mod keys;
mod login_limits;
mod membership;
mod messages;
mod nul;
mod operator;
mod postgres_faults;
mod presence;
mod push_rules;
mod receipts;
mod redaction;
mod relations;
mod routes;
mod send;
mod session;
mod setup;
mod shared_secret;
mod stage;
mod start;
mod state;
mod stop;
mod sync_join;
mod sync_leave;
mod sync_properties;
mod to_device;
mod typing;
mod unread;
mod upgrade;
mod visibility;
mod ways_around;
