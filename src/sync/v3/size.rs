//! The size of an answer, and the turn that it waits for where it is large.
//!
//! Most answers are small and wait for nothing. One that may be large for all that is known waits before anything is read
//! ([`is_foreseen`]), or before any event is read, where numbers in memory tell of much state
//! ([`ChangedRooms`](crate::sync::device_lists::ChangedRooms)). One that turns out large gives up the part that is too
//! large, waits, and makes that part again.

use tokio::time::Instant;

use super::{Look, SyncError};
use crate::sync::large::{LARGE_BYTES, Turn, WAIT};

/// The turn of an answer that may be large, from when that is seen until the answer is made.
pub(super) struct Size<'a> {
    look: &'a Look<'a>,
    deadline: Instant,
    turn: Option<Turn<'a>>,
}

impl<'a> Size<'a> {
    pub(super) fn new(look: &'a Look<'a>, deadline: Instant) -> Self {
        Self { look, deadline: deadline.max(Instant::now() + WAIT), turn: None }
    }

    /// Whether an answer of so many bytes can be made now.
    pub(super) fn allows(&self, bytes: usize) -> bool {
        self.turn.is_some() || bytes < LARGE_BYTES
    }

    /// Waits for the turn of a large answer. Nothing large is to be held meanwhile.
    pub(super) async fn may_be_large(&mut self) -> Result<(), SyncError> {
        let Look { app, caller, .. } = self.look;
        if self.turn.is_none() {
            self.turn = Some(tokio::select! {
                biased;
                () = caller.revoked.cancelled() => return Err(SyncError::Revoked),
                turn = app.large_answers.turn_until(caller.user.nid, self.deadline) => turn?,
            });
        }
        Ok(())
    }
}

/// Whether the answer may be large for all that is known before anything is read. The client itself says which rooms it
/// was not told of. The age of its token says nothing: an idle client's grows old without news.
pub(super) fn is_foreseen(look: &Look<'_>) -> bool {
    look.request.full_state || look.is_initial() || !look.request.hints.left_out.is_empty()
}
