//! The size of an answer, and the turn that a large answer waits for.
//!
//! Most answers are small and do not wait. An answer that may be large waits before anything is read ([`is_foreseen`]),
//! or before any event is read, if numbers in memory show much changed state
//! ([`ChangedRooms`](crate::sync::device_lists::ChangedRooms)). An answer that turns out to be large discards the part
//! that is too large, waits, and builds that part again.

use tokio::time::Instant;

use super::{Look, SyncError};
use crate::shares::large_answers::{LARGE_BYTES, Turn, WAIT};

/// The turn of an answer that may be large, held from when that is noticed until the answer is complete.
pub(super) struct Size<'a> {
    look: &'a Look<'a>,
    deadline: Instant,
    turn: Option<Turn>,
}

impl<'a> Size<'a> {
    pub(super) fn new(look: &'a Look<'a>, deadline: Instant) -> Self {
        Self { look, deadline: deadline.max(Instant::now() + WAIT), turn: None }
    }

    /// Returns whether an answer of this many bytes can be built now.
    pub(super) fn allows(&self, bytes: usize) -> bool {
        self.turn.is_some() || bytes < LARGE_BYTES
    }

    /// Waits for the turn of a large answer. The caller must hold nothing large meanwhile.
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

/// Returns whether the answer may be large, judged before anything is read. The client's token names the rooms that
/// were left out. The token's age tells nothing: an idle client's token grows old without news.
pub(super) fn is_foreseen(look: &Look<'_>) -> bool {
    look.request.full_state || look.is_initial() || !look.request.hints.left_out.is_empty()
}
