//! What the system lets this process have.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Each long poll holds a socket. Many systems start processes with 1024 and allow far more to who asks.
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
