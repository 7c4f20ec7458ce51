//! Storage: all SQL of the server, for SQLite and PostgreSQL from one set of query texts.
//!
//! Promises: a write is answered only after the commit that holds it ([`Committer`]); a reader never sees half of a
//! commit; a failing database is an [`Error`], never "not found". Nothing outside this module names `sqlx`.
//!
//! Reading order: [`conn`] (one text for two engines), [`rows`] (the data to write), [`committer`] (the task that
//! writes it), [`open`] (starting up), then one file per group of tables.

pub mod committer;
mod conn;
mod error;
mod exists;
pub mod ids;
pub(crate) mod latest;
pub mod log;
mod migrations;
mod open;
mod pieces;
pub mod rows;
mod terms;
pub mod vocabulary;

pub mod account_data;
pub mod accounts;
pub mod aliases;
pub mod changed_rooms;
pub mod checkpoints;
pub mod cross_signing;
pub mod device_keys;
pub mod devices;
pub mod edges;
pub mod events;
pub mod filters;
pub mod gaps;
pub mod graph;
pub mod jobs;
pub mod key_backup;
pub mod leftovers;
pub mod members;
pub mod one_time_keys;
pub mod own_keys;
pub mod profiles;
pub mod receipts;
pub mod redactions;
pub mod relations;
pub mod remote_members;
pub mod room_heads;
pub mod room_lists;
pub mod server_keys;
pub mod sides;
pub mod states;
pub mod sweeps;
pub mod timelines;
pub mod to_device;
pub mod tokens;
pub mod txn_ids;
pub mod unread;

pub use committer::{Committed, Committer, Lineage, Patience, Role, Transaction, Write};
pub use conn::{Conn, Counters, Reader};
pub use error::Error;
pub use exists::exists;
pub use ids::{
    DeviceNid, EventNid, FilterNid, KeyNid, Position, RoomNid, ServerNid, SideNid, TimelinePlace, TypeNid, UserNid,
};
pub use open::{Database, DatabaseOptions, Durability, OpenError};
pub use rows::{Insert, Row, Value};
pub use vocabulary::{Vocabulary, keys::StateKey};

pub(crate) use conn::{Sql, from_row, ids_32, on, statements};

#[cfg(test)]
pub(crate) mod tests;
