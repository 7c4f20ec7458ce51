//! The limits on what is done at a time, for all users together and for each of them, and on how often it is done.

pub mod large_answers;
pub mod parked_syncs;
pub mod rate_limits;
pub mod shares;
