//! Writes that must read first, such as handing out a one-time key.

use std::{future::Future, pin::Pin, sync::Mutex};

use tokio::sync::oneshot;

use super::Hook;
use crate::store::{Conn, Error, Position, ids::lock};

/// A piece of work inside the committer's transaction. Use it only where the rows to write depend on rows to read: it
/// runs alone on the one writing connection, so everything else waits for it.
pub trait Transaction: Send + Sync + 'static {
    type Output: Send + 'static;

    /// Reads and writes. It may run twice when the first commit fails, so it keeps nothing between runs.
    fn run(&self, conn: &mut Conn<'_>, position: Position) -> impl Future<Output = Result<Self::Output, Error>> + Send;

    /// Runs after the commit and before its position becomes visible. Must be short and must not block.
    fn committed(&self, output: &Self::Output, position: Position) {
        let _ = (output, position);
    }

    /// Runs right after the position has become visible: the place for wake-ups.
    fn wake(&self, output: &Self::Output, position: Position) {
        let _ = (output, position);
    }
}

pub(super) trait Erased: Send + Sync {
    fn run<'a>(
        &'a self,
        conn: &'a mut Conn<'_>,
        position: Position,
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

    /// Updates memory; what it returns is to be run once the position is visible.
    fn committed(self: Box<Self>, position: Position) -> Option<Hook>;
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
            let output = self.transaction.run(conn, position).await?;
            *lock(&self.output) = Some(output);
            Ok(())
        })
    }

    fn committed(self: Box<Self>, position: Position) -> Option<Hook> {
        let output = lock(&self.output).take()?;
        self.transaction.committed(&output, position);
        let Self { transaction, sender, .. } = *self;
        let output = Mutex::new(output);
        Some(Box::new(move || {
            let output = output.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            transaction.wake(&output, position);
            // A caller that went away does not wait for its answer.
            let _ = sender.send(output);
        }))
    }
}
