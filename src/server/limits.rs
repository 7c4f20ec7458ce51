//! Limits of the system on this process.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Raises the limit on open files to its maximum. Each long poll holds a socket. Many systems start processes with a
/// limit of 1024 but allow far more.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit on open files stays as it was");
    }
}
