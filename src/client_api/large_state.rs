//! The turn that an answer waits for if it holds a large room state or many members.
//!
//! Most rooms have a small state, and answers about them do not wait. A state that may be large is read only once the
//! turn comes. A state that turns out to be large is dropped, and read again once the turn comes.

use std::sync::Arc;

use crate::{
    account::LocalDevice,
    app::App,
    http::ApiError,
    room::{Room, event::StoredEvent},
    shares::large_answers::{LARGE_BYTES, LARGE_EVENTS, NoTurn, Turn},
    store::{self, Position, UserNid},
};

/// The turn of one answer, if it needs one. Hold it until the answer is complete.
pub(super) struct StateTurn<'a> {
    app: &'a App,
    user: UserNid,
    turn: Option<Turn>,
}

impl<'a> StateTurn<'a> {
    /// Waits for the turn if the room's state may be large. The caller must hold nothing large while it waits.
    pub(super) async fn of(app: &'a App, caller: &LocalDevice, room: &Room) -> Result<Self, NoTurn> {
        let user = caller.user.nid;
        let may_be_large = room.state_changed_at_most(Position::BEFORE_ALL) > LARGE_EVENTS;
        let turn = if may_be_large { Some(app.large_answers.turn(user).await?) } else { None };
        Ok(Self { app, user, turn })
    }

    /// Returns the events from `read`. Calls it a second time if the events turn out to be large only after the first
    /// read.
    pub(super) async fn read<F>(&mut self, read: impl Fn() -> F) -> Result<Vec<Arc<StoredEvent>>, ApiError>
    where
        F: Future<Output = Result<Vec<Arc<StoredEvent>>, store::Error>>,
    {
        let events = read().await?;
        let bytes: usize = events.iter().map(|event| event.size_bytes()).sum();
        if self.turn.is_some() || bytes < LARGE_BYTES {
            return Ok(events);
        }
        drop(events);
        self.turn = Some(self.app.large_answers.turn(self.user).await?);
        Ok(read().await?)
    }
}
