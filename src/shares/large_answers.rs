//! Limits on answers that may be large, while they are built.
//!
//! [`Transport`](crate::http::transport::Transport) bounds the answers in flight, but an answer must be built before
//! its size is known. Promises: few large answers are built at a time, and fewer for one user. The others wait, hold
//! little memory, and get their turn in the order of their requests. No request waits any longer once the server stops.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Share, Shares};
use crate::store::UserNid;

/// The size from which an answer counts as large. A thousand smaller ones built at once take 256 MB.
pub const LARGE_BYTES: usize = 256 << 10;

/// The number of state events above which an answer may be large, judged before any event is read. This many ordinary
/// events are still smaller than [`LARGE_BYTES`]; this many of the largest have 8 MiB.
pub const LARGE_EVENTS: usize = 128;

/// The maximum number of large answers that are built at a time. An initial sync of a large account takes some 10 to 30
/// MB; `v3/budget.rs` has the maximum.
const MAX_AT_ONCE: u32 = 16;

/// The maximum number for one user: two clients may do an initial sync at once.
const MAX_FOR_USER: u32 = 2;

/// The maximum number of one user's large answers that wait for a turn or are built: more than any user has devices
/// that start at once.
const MAX_ASKING: usize = 100;

/// The time that a request waits for a turn, unless its own timeout is longer. Clients and proxies give up after 30
/// seconds to a minute.
pub const WAIT: Duration = Duration::from_secs(30);

/// The reason why a large answer got no turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoTurn {
    #[error("too many large answers are made at this moment")]
    TooMany,
    #[error("the server stops")]
    Stopping,
}

/// All large answers that are being built or wait for that.
#[derive(Debug)]
pub struct LargeAnswers {
    shares: Arc<Shares<UserNid>>,
    /// Cancelled when the server stops.
    stopping: CancellationToken,
}

/// The turn of one large answer, until this is dropped.
pub type Turn = Share<UserNid>;

impl LargeAnswers {
    /// Gives turns until `stopping` is cancelled.
    pub fn new(stopping: CancellationToken) -> Self {
        Self { shares: Shares::new(MAX_AT_ONCE, MAX_FOR_USER, MAX_ASKING), stopping }
    }

    /// Waits for the turn of a large answer, [`WAIT`] at most.
    ///
    /// # Errors
    /// If no turn comes in time, if too many requests wait already, or if the server stops meanwhile.
    pub async fn turn(&self, user: UserNid) -> Result<Turn, NoTurn> {
        self.turn_until(user, Instant::now() + WAIT).await
    }

    /// Waits for the turn of a large answer.
    ///
    /// # Errors
    /// If no turn comes in time, if too many requests wait already, or if the server stops meanwhile.
    pub async fn turn_until(&self, user: UserNid, deadline: Instant) -> Result<Turn, NoTurn> {
        tokio::select! {
            // A free turn is given even while the server stops, because requests in flight are finished.
            biased;
            turn = self.shares.take(user, 1, deadline) => turn.map_err(|_| NoTurn::TooMany),
            () = self.stopping.cancelled() => Err(NoTurn::Stopping),
        }
    }

    /// The number of the user's large answers that are being built or wait for that.
    pub fn asking(&self, user: UserNid) -> usize {
        self.shares.asking(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: UserNid = UserNid(1);

    fn until_never() -> LargeAnswers {
        LargeAnswers::new(CancellationToken::new())
    }

    async fn at_once(large: &LargeAnswers, user: UserNid) -> Option<Turn> {
        large.turn_until(user, Instant::now()).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_has_few_turns_and_the_next_comes_when_one_ends() {
        let large = until_never();
        let mut held = Vec::new();
        for _ in 0..MAX_FOR_USER {
            held.push(at_once(&large, ALICE).await.expect("there is room"));
        }
        let began = Instant::now();
        assert_eq!(large.turn(ALICE).await.err(), Some(NoTurn::TooMany));
        assert_eq!(began.elapsed(), WAIT);
        let _bobs = at_once(&large, UserNid(2)).await.expect("somebody else has their own");
        let (next, ()) = tokio::join!(large.turn(ALICE), async { drop(held.pop()) });
        drop(next.expect("one has ended"));
        drop(held);
        assert_eq!(large.shares.holders(), 1, "whoever asks for nothing is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn all_users_together_have_a_bounded_number() {
        let large = until_never();
        let mut held = Vec::new();
        for user in 0..MAX_AT_ONCE {
            let user = UserNid(user.into());
            held.push(at_once(&large, user).await.expect("there is room"));
        }
        assert!(at_once(&large, UserNid(99)).await.is_none());
        drop(held.pop());
        assert!(at_once(&large, UserNid(99)).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_are_bounded_too() {
        let large = Arc::new(until_never());
        let mut held = Vec::new();
        for _ in 0..MAX_FOR_USER {
            held.push(at_once(&large, ALICE).await.expect("there is room"));
        }
        let mut waiting = tokio::task::JoinSet::new();
        for _ in MAX_FOR_USER as usize..MAX_ASKING {
            let large = Arc::clone(&large);
            waiting.spawn(async move {
                let turn = large.turn(ALICE).await;
                turn.is_ok()
            });
        }
        while large.asking(ALICE) < MAX_ASKING {
            tokio::task::yield_now().await;
        }
        let began = Instant::now();
        assert_eq!(large.turn(ALICE).await.err(), Some(NoTurn::TooMany));
        assert_eq!(began.elapsed(), Duration::ZERO, "it does not wait");
        drop(held);
        while let Some(answered) = waiting.join_next().await {
            assert!(answered.expect("it does not panic"), "each gets its turn");
        }
        assert_eq!(large.shares.holders(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_once_the_server_stops() {
        let stopping = CancellationToken::new();
        let large = LargeAnswers::new(stopping.clone());
        let mut held = Vec::new();
        for _ in 0..MAX_FOR_USER {
            held.push(at_once(&large, ALICE).await.expect("there is room"));
        }
        let began = Instant::now();
        let (waiting, ()) = tokio::join!(large.turn(ALICE), async { stopping.cancel() });
        assert_eq!(waiting.err(), Some(NoTurn::Stopping));
        assert_eq!(large.turn(ALICE).await.err(), Some(NoTurn::Stopping));
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(held);
        assert!(at_once(&large, ALICE).await.is_some(), "one that need not wait is finished");
    }
}
