//! One look for news: the request, and the point up to which it is answered.

use std::sync::Arc;

use sabha_federation::state_log::Membership;
use tokio::sync::OnceCell;

use super::{Request, budget::Budgets};
use crate::{
    account::LocalDevice,
    account_data::ignored::Ignored,
    app::App,
    bus::LiveUser,
    room::{Room, read::visibility::Sight},
    store::{Error, Position, RoomNid},
    sync::{
        token::{Hints, SyncToken},
        visit::ToVisit,
    },
};

/// One look for news: the caller, the start and the end.
pub(super) struct Look<'a> {
    pub(super) app: &'a App,
    pub(super) caller: &'a LocalDevice,
    pub(super) request: &'a Request,
    pub(super) since: Option<SyncToken>,
    pub(super) upto: Position,
    /// The term that has reached `upto`.
    pub(super) term: i64,
    pub(super) ephemeral: u64,
    pub(super) now_ms: i64,
    pub(super) ignored: OnceCell<Arc<Ignored>>,
    pub(super) budgets: Budgets,
    pub(super) live: &'a LiveUser,
}

impl Look<'_> {
    /// The rooms to look at: all of them for a client that knows nothing or asks for everything.
    pub(super) async fn to_visit(&self) -> Result<ToVisit, Error> {
        match self.since.filter(|_| !self.request.full_state) {
            Some(since) => {
                let (who, token) = ((&*self.caller.user, self.live), (&since, &self.request.hints));
                ToVisit::since(self.app, who, token, |room| self.wants(room)).await
            }
            None => ToVisit::all(self.app, &self.caller.user, |room| self.wants(room)).await,
        }
    }

    /// The users that the user ignores: the same for the whole answer, and read when first needed.
    pub(super) async fn ignored(&self) -> Result<&Ignored, Error> {
        // Called for every room: creating the future that reads them would copy all of it each time.
        if let Some(ignored) = self.ignored.get() {
            return Ok(ignored);
        }
        let read = || Box::pin(self.app.account_data.ignored(&self.caller.user));
        Ok(self.ignored.get_or_try_init(read).await?)
    }

    /// Returns whether the filter accepts any part of the room.
    pub(super) fn wants(&self, room: &Room) -> bool {
        self.request.filter.room.rooms.accepts(&room.room_id)
    }

    /// The position of the client, or zero if it knows nothing.
    pub(super) fn since_pos(&self) -> Position {
        self.since.map_or(Position::BEFORE_ALL, |token| token.position)
    }

    pub(super) fn since_ephemeral(&self) -> u64 {
        self.since.map_or(0, |token| token.ephemeral)
    }

    pub(super) fn is_initial(&self) -> bool {
        self.since.is_none()
    }

    /// The part of the client's token that is about single rooms; `None` for a client that knows nothing.
    pub(super) fn hints(&self) -> Option<&Hints> {
        self.since.is_some().then_some(&self.request.hints)
    }

    /// Returns whether earlier answers left out this room, because it could not be read or did not fit.
    pub(super) fn was_left_out(&self, room: RoomNid) -> bool {
        self.hints().is_some_and(|hints| hints.left_out.contains(&room))
    }

    /// The position up to which the client has the room. `None` if it has nothing of the room, or nothing to continue
    /// from.
    pub(super) fn has_had(&self, sight: &Sight, room: RoomNid) -> Option<Position> {
        let since = self.since.filter(|_| !self.was_left_out(room))?.position;
        (sight.membership_at(since) == Some(Membership::Join)).then_some(since)
    }

    /// The start of the process that last answered the client, if it was another one. The client must be told that everything
    /// that only that start had in memory has ended.
    pub(super) fn earlier_start(&self) -> Option<i64> {
        self.since.map(|since| since.start).filter(|start| *start != self.app.db.start())
    }
}
