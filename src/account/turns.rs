//! Turns: one writer at a time for each account, for writes that depend on earlier reads.

use std::{collections::HashMap, time::Duration};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::timeout,
};

use crate::{
    limit_exceeded::LimitExceeded,
    store::{UserNid, ids::lock},
};

/// Number of locks. Two users with the same lock wait for each other's commits: one or a few, of a millisecond each.
const LOCKS: usize = 256;

/// Maximum number of one user's requests that wait for a turn. A client that reads a hundred rooms at once waits with so
/// many; each holds its request in memory.
pub const MAX_WAITING: usize = 100;

/// The maximum time that a request waits for a turn, which is a thousand turns before it. It holds its memory meanwhile, for
/// which other users' requests wait twice as long.
const WAIT: Duration = Duration::from_secs(10);

/// The time after which a request that was refused may be retried. A hundred turns take less.
const RETRY: Duration = Duration::from_secs(1);

/// Locks held across a commit, or a bounded number of them. They order the writes of one user's account data, filters, receipts, keys and backups.
/// Other users do not wait, except the few with the same lock.
pub struct Turns(Box<[Lock]>);

#[derive(Default)]
struct Lock {
    turn: Mutex<()>,
    /// The number of requests that wait, by user. Locked for a few lines without `.await`.
    waiting: std::sync::Mutex<HashMap<UserNid, usize>>,
}

/// A request that waits for its turn, until this is dropped.
struct Waiting<'a> {
    lock: &'a Lock,
    user: UserNid,
}

/// The right to read and then write what belongs to one user.
pub struct Turn<'a> {
    pub(crate) user: UserNid,
    _lock: MutexGuard<'a, ()>,
}

impl Default for Turns {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Lock::default()).collect())
    }
}

impl Turns {
    /// Waits until nobody else writes for this user, for a request that writes.
    ///
    /// # Errors
    /// If [`MAX_WAITING`] of the user's requests wait, or if there is no turn for [`WAIT`].
    pub async fn take(&self, user: UserNid) -> Result<Turn<'_>, LimitExceeded> {
        let lock = self.lock_of(user);
        if let Ok(free) = lock.turn.try_lock() {
            return Ok(Turn { user, _lock: free });
        }
        let _waiting = lock.wait(user)?;
        let free = timeout(WAIT, lock.turn.lock()).await.map_err(|_| LimitExceeded { wait: RETRY })?;
        Ok(Turn { user, _lock: free })
    }

    /// Waits until nobody else writes for this user, for as long as it takes: for reads that many requests need, and for the
    /// server's own work.
    pub async fn take_always(&self, user: UserNid) -> Turn<'_> {
        Turn { user, _lock: self.lock_of(user).turn.lock().await }
    }

    fn lock_of(&self, user: UserNid) -> &Lock {
        // Short ids are given out in order, so the remainder spreads them evenly.
        &self.0[user.0.unsigned_abs() as usize % LOCKS]
    }
}

impl Lock {
    fn wait(&self, user: UserNid) -> Result<Waiting<'_>, LimitExceeded> {
        let mut waiting = lock(&self.waiting);
        let number = waiting.entry(user).or_default();
        if *number >= MAX_WAITING {
            return Err(LimitExceeded { wait: RETRY });
        }
        *number += 1;
        Ok(Waiting { lock: self, user })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.lock.waiting);
        let Some(number) = waiting.get_mut(&self.user) else { return };
        *number -= 1;
        if *number == 0 {
            waiting.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{task::JoinSet, time::Instant};

    use super::*;

    const ALICE: UserNid = UserNid(1);
    const WITH_THE_SAME_LOCK: UserNid = UserNid(1 + LOCKS as i64);

    #[tokio::test]
    async fn those_of_one_user_that_wait_are_bounded() {
        let turns: &'static Turns = Box::leak(Box::default());
        let held = turns.take(ALICE).await.expect("free");
        let mut waiting = JoinSet::new();
        for _ in 0..MAX_WAITING {
            waiting.spawn(async move { turns.take(ALICE).await.is_ok() });
        }
        while lock(&turns.lock_of(ALICE).waiting).get(&ALICE) != Some(&MAX_WAITING) {
            tokio::task::yield_now().await;
        }
        assert_eq!(turns.take(ALICE).await.err(), Some(LimitExceeded { wait: RETRY }));
        // Another user waits for the same lock, and so does the server itself.
        waiting.spawn(async move { turns.take(WITH_THE_SAME_LOCK).await.is_ok() });
        waiting.spawn(async move { turns.take_always(ALICE).await.user == ALICE });
        drop(held);
        while let Some(taken) = waiting.join_next().await {
            assert!(taken.expect("it does not panic"), "each has its turn");
        }
        assert!(lock(&turns.lock_of(ALICE).waiting).is_empty());
    }
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_another_with_the_same_lock() {
        let turns = Turns::default();
        let held = turns.take(ALICE).await.expect("free");
        let began = Instant::now();
        assert_eq!(turns.take(WITH_THE_SAME_LOCK).await.err(), Some(LimitExceeded { wait: RETRY }));
        assert_eq!(began.elapsed(), WAIT);
        assert!(lock(&turns.lock_of(ALICE).waiting).is_empty());
        let (next, ()) = tokio::join!(turns.take(WITH_THE_SAME_LOCK), async { drop(held) });
        assert!(next.is_ok());
        assert_eq!(began.elapsed(), WAIT);
    }
}
