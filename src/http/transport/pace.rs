//! The pace at which a client must read its answers.
//!
//! A client may fall behind for [`GRACE`], and earns time back with the bytes that it reads. So a phone in a tunnel
//! keeps its connection, and so does a client that reads slowly but steadily. A client that does not read loses it.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

/// The time that a client may fall behind.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// The minimum reading rate. Slower than any mobile network since GPRS.
const BYTES_PER_SECOND: u32 = 4 * 1024;

/// The time that reading `bytes` earns back.
pub(super) fn earned(bytes: usize) -> Duration {
    Duration::from_secs(1).mul_f64(bytes as f64 / f64::from(BYTES_PER_SECOND))
}

/// Watches one socket. It has a timer only while a write waits, so a long poll costs none.
#[derive(Debug)]
pub(in crate::http) struct Pace {
    credit: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(in crate::http) fn new() -> Self {
        Self { credit: GRACE, waiting_since: None, timer: None }
    }

    /// Records that the socket took this many bytes.
    pub(in crate::http) fn wrote(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
            self.timer = None;
        }
        if self.credit < GRACE {
            self.credit = GRACE.min(self.credit + earned(bytes));
        }
    }

    /// Records that the socket takes no bytes now. Ready with an error once the client is too far behind.
    pub(in crate::http) fn poll_behind(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(since + self.credit)));
        timer.as_mut().poll(cx).map(|()| io::Error::new(ErrorKind::TimedOut, "the client reads too slowly"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how long a wait lasts before it fails, or `None` if it does not fail within ten minutes.
    async fn given_up_after(pace: &mut Pace) -> Option<Duration> {
        let began = Instant::now();
        let behind = std::future::poll_fn(|cx| pace.poll_behind(cx));
        tokio::time::timeout(Duration::from_secs(600), behind).await.ok().map(|_| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_given_up_after_the_grace() {
        let mut pace = Pace::new();
        pace.wrote(1 << 20);
        assert_eq!(given_up_after(&mut pace).await, Some(GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn reading_brings_time_back_and_waiting_for_news_costs_none() {
        let mut pace = Pace::new();
        let half = GRACE / 2;
        for _ in 0..10 {
            let behind = std::future::poll_fn(|cx| pace.poll_behind(cx));
            assert!(tokio::time::timeout(half, behind).await.is_err(), "there is time left");
            pace.wrote(half.as_secs() as usize * BYTES_PER_SECOND as usize);
            // Nothing waits to be written.
            tokio::time::advance(10 * GRACE).await;
        }
        assert_eq!(given_up_after(&mut pace).await, Some(GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn trickling_is_not_reading() {
        let mut pace = Pace::new();
        let began = Instant::now();
        loop {
            let behind = std::future::poll_fn(|cx| pace.poll_behind(cx));
            if tokio::time::timeout(Duration::from_secs(5), behind).await.is_ok() {
                break;
            }
            pace.wrote(100);
        }
        assert!(began.elapsed() < GRACE + Duration::from_secs(5), "{:?}", began.elapsed());
    }
}
