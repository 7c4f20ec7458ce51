//! The limits on syncs that wait, for each user, and on how often something is done.

pub mod parked_syncs;
pub mod rate_limits;
