//! Waits of a handler for something outside of this server's own work, which may take seconds.
//!
//! Promise: a request whose handler waits like this takes little memory, and holds no part of the budget for parsed bodies
//! meanwhile. Otherwise a few requests could keep the whole budget from everybody.

use crate::http::{ApiError, FREE_BYTES, too_many_parts};

/// The maximum size of a parsed request that waits for a password's hash: a thousand devices to delete take 215 kB. The rate
/// limit of logins bounds the number of these requests.
const MAX_BYTES_WITH_PASSWORD: usize = 256 << 10;

/// The thing that a handler waits for.
#[derive(Debug, Clone, Copy)]
pub enum WaitsFor {
    /// The answer of another server.
    Server,
    /// The hash of a password. One that is checked has passed the rate limit of logins.
    Password,
}

impl WaitsFor {
    /// Refuses a request that takes too much memory to wait with, once it is parsed.
    ///
    /// # Errors
    /// `413`.
    pub(super) fn check(self, parsed_bytes: usize) -> Result<(), ApiError> {
        let max_bytes = match self {
            Self::Server => FREE_BYTES,
            Self::Password => MAX_BYTES_WITH_PASSWORD,
        };
        if parsed_bytes > max_bytes { Err(too_many_parts()) } else { Ok(()) }
    }
}
