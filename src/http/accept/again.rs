//! Polls a future again at once when it was woken while it was being polled.
//!
//! hyper wakes itself when a handler reads a body. The runtime would put the task at the end of its queue, and wake another
//! thread for it, which costs more than the poll.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use crate::store::ids::lock;

/// The most polls in a row. A future that wakes itself for ever must let others run.
const MOST_POLLS: usize = 4;

const IDLE: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;

/// The waker of a future that is polled with [`Self::poll`].
#[derive(Debug, Default)]
pub(super) struct Again {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Again {
    /// Polls with `poll`, and once more whenever it was woken meanwhile. Only one caller at a time.
    pub(super) fn poll<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        {
            let mut task = lock(&self.task);
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        let waker = Waker::from(Arc::clone(self));
        let mut inner = Context::from_waker(&waker);
        for _ in 0..MOST_POLLS {
            // A swap, because it also reads: this poll sees the news of every wake whose note it overwrites.
            self.state.swap(POLLING, Ordering::AcqRel);
            if let Poll::Ready(output) = poll(&mut inner) {
                self.state.store(IDLE, Ordering::Release);
                return Poll::Ready(output);
            }
            // A wake that comes from now on goes to the task.
            if self.state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        self.state.swap(IDLE, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = |state| (state != IDLE).then_some(WOKEN);
        let is_idle = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, noted).is_err();
        if is_idle && let Some(task) = &*lock(&self.task) {
            task.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once a future that wakes itself so many times. Returns the polls, the wakes of the task, and the waker.
    fn polled(wakes: usize) -> (usize, Arc<Count>, Waker) {
        let (again, count) = (Arc::new(Again::default()), Arc::new(Count::default()));
        let task = Waker::from(Arc::clone(&count));
        let mut polls = 0;
        let mut inner = None;
        let pending: Poll<()> = again.poll(&mut Context::from_waker(&task), |cx| {
            if polls < wakes {
                cx.waker().wake_by_ref();
            }
            polls += 1;
            inner = Some(cx.waker().clone());
            Poll::Pending
        });
        assert!(pending.is_pending());
        (polls, count, inner.expect("it was polled"))
    }

    #[test]
    fn a_wake_during_a_poll_polls_again_and_wakes_nobody() {
        for wakes in 0..MOST_POLLS {
            let (polls, count, _) = polled(wakes);
            assert_eq!((polls, count.0.load(Ordering::Relaxed)), (wakes + 1, 0));
        }
    }

    #[test]
    fn a_future_that_wakes_itself_for_ever_lets_others_run() {
        let (polls, count, _) = polled(usize::MAX);
        assert_eq!((polls, count.0.load(Ordering::Relaxed)), (MOST_POLLS, 1));
    }

    #[test]
    fn a_later_wake_wakes_the_task() {
        let (_, count, waker) = polled(0);
        waker.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
