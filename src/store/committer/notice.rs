//! The time after which a commit is reported as slow.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer for all commits: a busy committer sets one for each `after`, not one for each commit. Setting a timer may wake
/// another thread, which then has less time to sleep.
#[derive(Default)]
pub(super) struct Notice(Option<Pin<Box<Sleep>>>);

impl Notice {
    /// Ready once `after` has passed since a commit began.
    pub(super) fn poll_due(&mut self, began: Instant, after: Duration, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            // The timer of an earlier commit ends before that of this one would.
            if let Some(timer) = &mut self.0 {
                ready!(timer.as_mut().poll(cx));
                self.0 = None;
            }
            let due = began + after;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.0 = Some(Box::pin(sleep_until(due)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_commit_has_its_whole_time_though_there_is_one_timer() {
        let after = Duration::from_secs(3);
        let mut notice = Notice::default();
        let first = Instant::now();
        let is_due = poll_fn(|cx| Poll::Ready(notice.poll_due(first, after, cx).is_ready())).await;
        assert!(!is_due);
        tokio::time::advance(Duration::from_secs(2)).await;
        let second = Instant::now();
        poll_fn(|cx| notice.poll_due(second, after, cx)).await;
        assert_eq!(second.elapsed(), after);
    }
}
