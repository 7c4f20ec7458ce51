//! Writes that must read first, such as handing out a one-time key.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Mutex,
    task::Poll,
};

use tokio::sync::oneshot;

use crate::store::{Conn, Error, Position, ids::lock};

/// A piece of work inside the committer's transaction. Use it only where the rows to write depend on rows to read: it
/// runs alone on the one writing connection, so everything else waits for it.
pub trait Transaction: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Allows the use of the disk reserve when the disk is full. For signing in and out, in few rows.
    const ESSENTIAL: bool = false;

    /// The number of rows that it will write or delete, if that can be many: a batch ends after about
    /// [`MAX_BATCH_ROWS`](super::MAX_BATCH_ROWS).
    fn rows(&self) -> usize {
        1
    }

    /// Reads and writes. It may run more than once when a commit fails, so it keeps nothing between runs. One that panics
    /// fails alone, with [`Error::Panicked`].
    fn run(&self, conn: &mut Conn<'_>, position: Position) -> impl Future<Output = Result<Self::Output, Error>> + Send;
}

pub(super) trait Erased: Send + Sync {
    fn run<'a>(
        &'a self,
        conn: &'a mut Conn<'_>,
        position: Position,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

    fn rows(&self) -> usize;

    fn is_essential(&self) -> bool;

    /// Hands the output to the caller. Call it once the position is visible.
    fn answer(self: Box<Self>);
}

/// A transaction with the place for its output.
pub(super) struct Slot<T: Transaction> {
    transaction: T,
    output: Mutex<Option<T::Output>>,
    sender: oneshot::Sender<T::Output>,
}

impl<T: Transaction> Slot<T> {
    pub(super) fn new(transaction: T, sender: oneshot::Sender<T::Output>) -> Self {
        Self { transaction, output: Mutex::new(None), sender }
    }
}

impl<T: Transaction> Erased for Slot<T> {
    fn run<'a>(
        &'a self,
        conn: &'a mut Conn<'_>,
        position: Position,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(async move {
            let output = contained(self.transaction.run(conn, position)).await?;
            *lock(&self.output) = Some(output);
            Ok(())
        })
    }

    fn rows(&self) -> usize {
        self.transaction.rows()
    }

    fn is_essential(&self) -> bool {
        T::ESSENTIAL
    }

    fn answer(self: Box<Self>) {
        // A transaction without output has not run, and was not in the commit.
        if let Some(output) = lock(&self.output).take() {
            // A caller that went away does not wait for its answer.
            let _ = self.sender.send(output);
        }
    }
}

/// Runs a transaction and turns its panic into an error. It is not polled again, and its writes are rolled back.
async fn contained<T>(run: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut run = pin!(run);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(context))) {
        Ok(polled) => polled,
        // The panic itself is logged by the process's hook.
        Err(_) => Poll::Ready(Err(Error::Panicked)),
    })
    .await
}
