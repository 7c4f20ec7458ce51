//! Futures over data in memory, in tests.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

/// The output of a future that never waits.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future over data in memory never waits"),
    }
}
