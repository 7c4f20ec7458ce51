//! The options of a database: its place, what a commit survives, and the part that this process plays.

use std::path::PathBuf;

use sqlx::postgres::PgConnectOptions;

use super::OpenError;
use crate::{
    clock::Clock,
    store::committer::{Patience, Role},
};

/// The failure that a committed write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Loss of power: every commit is synced to disk before it is answered.
    #[default]
    Power,
    /// The end of the process, but not of the machine.
    Process,
}

#[derive(Debug, Clone)]
pub enum Location {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    pub location: Location,
    pub durability: Durability,
    /// The number of connections for reading.
    pub readers: u32,
    pub server_name: String,
    /// The part that this process plays. Only on PostgreSQL may there be others.
    pub role: Role,
    /// A random number that names this start of the server.
    pub incarnation: i64,
    pub clock: Clock,
    pub patience: Patience,
}

impl DatabaseOptions {
    /// # Errors
    /// [`OpenError::Url`] when `url` is neither `sqlite:PATH` nor `postgres://…`.
    pub fn location(url: &str) -> Result<Location, OpenError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            return Ok(Location::Sqlite(path.trim_start_matches("//").into()));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = url.parse().map_err(|error: sqlx::Error| OpenError::Url(error.to_string()))?;
            return Ok(Location::Postgres(Box::new(options)));
        }
        Err(OpenError::Url("it must start with sqlite: or postgres://".to_owned()))
    }
}
