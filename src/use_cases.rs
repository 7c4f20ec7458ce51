//! Requests that several services answer together: entering a room, changing a profile, deactivating an account, the
//! public directory.
//!
//! The client-server API, the server-server API and the operator's commands call these. Their handlers only translate
//! requests and answers; no status code is known here. What one service can do alone stays in that service.

pub mod deactivation;
pub mod directory;
pub mod joining;
mod predecessor;
pub mod profile;
