//! Sabha, a Matrix homeserver. The binary in `main.rs` only reads its flags; everything is here, so that tests can use it.
//!
//! The modules from the bottom up; imports point down.
//!
//! - [`store`]: all SQL, for SQLite and PostgreSQL, and the committer, the one task that writes.
//! - [`bus`], [`clock`], [`glob`], [`json`], [`memory`], [`network`]: wake-ups, the time, glob matching, the check of
//!   JSON that we pass on, the allocator, the network of an address. [`report`]: an error with its causes.
//!   [`limit_exceeded`]: the refusal that asks for patience. [`shares`]: what a bounded number of holders have at a time,
//!   such as the right to make a large answer.
//! - [`appservice`]: the configured application services and their namespaces.
//! - [`config`]: one typed struct for each section of the configuration; everything is checked before we listen.
//! - [`account`]: users, devices, sessions, tokens, profiles, interactive authentication. [`account_data`]: account data,
//!   tags, ignored users.
//! - [`room`]: the heart. Events are appended here, and only here.
//! - [`keys`]: device keys, one-time keys, cross-signing, key backup, messages to devices.
//! - [`ephemeral`]: typing, receipts, presence. [`push`]: push rules.
//! - [`filter`]: filters of `/sync` and `/messages`. [`lazy_members`]: the members that each device was sent. [`limits`]:
//!   the limits on syncs that wait, and on how often something is done.
//! - [`outbound`]: the one client for requests to other hosts. [`remote`]: talking to other servers.
//! - [`jobs`]: work that a commit promises.
//! - [`http`]: turns a connection into a request, and the result into an answer.
//! - [`app`]: all services in one place.
//! - [`use_cases`]: what several services do together for one request: joining, profiles, deactivation, the directory.
//! - [`endpoint`]: typed requests with a known caller, and their handlers.
//! - [`sync`]: the changes since a client's last request.
//! - [`client_api`]: the client-server API, one file per endpoint. [`federation_api`]: the server-server API, likewise.
//!   [`admin_api`]: the API for operators. [`synapse_admin`]: one endpoint of Synapse's admin API.
//! - [`server`]: builds the services, starts them, stops them in order.
//! - [`cli`]: the command line.

pub mod account;
pub mod account_data;
pub mod admin_api;
pub mod app;
pub mod appservice;
pub mod bus;
pub mod cli;
pub mod client_api;
pub mod clock;
pub mod config;
pub mod endpoint;
pub mod ephemeral;
pub mod federation_api;
pub mod filter;
pub mod glob;
pub mod http;
pub mod jobs;
pub mod json;
pub mod keys;
pub mod lazy_members;
pub mod limit_exceeded;
pub mod limits;
pub mod memory;
pub mod network;
pub mod outbound;
pub mod push;
pub mod remote;
pub mod report;
pub mod room;
pub mod server;
pub mod shares;
pub mod store;
pub mod synapse_admin;
pub mod sync;
pub mod use_cases;
