//! The limits on what is done at a time, for all users together and for each of them.

pub mod large_answers;
pub mod parked_syncs;
