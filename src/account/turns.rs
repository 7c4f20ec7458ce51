//! Turns: one writer at a time for each account, for writes that depend on earlier reads.

use tokio::sync::{Mutex, MutexGuard};

use crate::store::UserNid;

/// Number of locks. Two users with the same lock wait for each other's commit, which takes a millisecond.
const LOCKS: usize = 256;

/// Locks held across a commit. They order the writes of one user's account data, filters, receipts, keys and backups.
/// Other users do not wait, except the few with the same lock.
pub struct Turns(Box<[Mutex<()>]>);

/// The right to read and then write what belongs to one user.
pub struct Turn<'a> {
    pub(crate) user: UserNid,
    _lock: MutexGuard<'a, ()>,
}

impl Default for Turns {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }
}

impl Turns {
    /// Waits until nobody else writes for this user.
    pub async fn take(&self, user: UserNid) -> Turn<'_> {
        // Short ids are given out in order, so the remainder spreads them evenly.
        let index = user.0.unsigned_abs() as usize % LOCKS;
        Turn { user, _lock: self.0[index].lock().await }
    }
}
