//! The turn that an answer with a room's state, or with its members, waits for where that is large.
//!
//! Most rooms have a small state, and answers about them wait for nothing. A state that is large for all that is known is read
//! in its turn; one that turns out large is given up, and read again in its turn.

use std::sync::Arc;

use super::pages::size_bytes;
use crate::{
    account::LocalDevice,
    app::App,
    http::ApiError,
    room::{Room, event::StoredEvent},
    store::{self, Position, UserNid},
    sync::large::{LARGE_BYTES, LARGE_EVENTS, NoTurn, Turn},
};

/// The turn of one answer, if it needs one: to be held until the answer is made.
pub(super) struct StateTurn<'a> {
    app: &'a App,
    user: UserNid,
    turn: Option<Turn<'a>>,
}

impl<'a> StateTurn<'a> {
    /// Waits for the turn if the room's state is large for all that is known. Nothing large is to be held meanwhile.
    pub(super) async fn of(app: &'a App, caller: &LocalDevice, room: &Room) -> Result<Self, NoTurn> {
        let user = caller.user.nid;
        let may_be_large = room.state_changed_at_most(Position::ZERO) > LARGE_EVENTS;
        let turn = if may_be_large { Some(app.large_answers.turn(user).await?) } else { None };
        Ok(Self { app, user, turn })
    }

    /// The events that `read` gives; read twice if only they themselves say that they are large.
    pub(super) async fn read<F>(&mut self, read: impl Fn() -> F) -> Result<Vec<Arc<StoredEvent>>, ApiError>
    where
        F: Future<Output = Result<Vec<Arc<StoredEvent>>, store::Error>>,
    {
        let events = read().await?;
        let bytes: usize = events.iter().map(|event| size_bytes(event)).sum();
        if self.turn.is_some() || bytes < LARGE_BYTES {
            return Ok(events);
        }
        drop(events);
        self.turn = Some(self.app.large_answers.turn(self.user).await?);
        Ok(read().await?)
    }
}
