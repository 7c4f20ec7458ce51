//! The refusal that the spec calls `M_LIMIT_EXCEEDED`.

use std::time::Duration;

/// The refusal of a request that came too soon, or with too many others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests; try again in {} ms", wait.as_millis())]
pub struct LimitExceeded {
    /// The time to wait, at least a millisecond.
    pub wait: Duration,
}
