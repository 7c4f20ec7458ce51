//! Rooms: what happened in them, and what is true of them now.

pub mod state_log;

/// The service of everything that happens in rooms.
pub struct Rooms {}
