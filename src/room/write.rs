//! Appending to a room: the only way for events into a room's graph.
//!
//! [`Rooms::enter`] waits for its turn; [`RoomWriter::append`] builds, signs and authorizes events on top of each
//! other ([`mod@append`]); [`RoomWriter::accept`] takes each with its outcome ([`outcome`]). Before events, a write may state
//! stored ones anew ([`restate`]) and replace the whole state ([`jump`]). [`RoomWriter::commit`] hands all of it to the
//! committer as one write. Nothing is changed before that.
//!
//! A writer reads the room at the head ([`mod@state`]), with the events that are still on their way to the disk
//! ([`queued`]).

pub mod alias;
pub(in crate::room) mod allowed;
mod append;
mod changes;
pub mod create;
mod decided;
mod graph;
pub mod invitee;
pub mod jump;
pub mod membership;
pub mod outcome;
pub mod profile;
pub(in crate::room) mod queued;
pub mod restate;
mod rows;
pub mod send;
mod state;
pub(in crate::room) mod stripped;
pub mod txn;
pub mod upgrade;

use std::sync::Arc;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId};
use sabha_federation::{AuthRuleError, BuildError, Pdu, graph::Extremities};
use tokio::sync::OwnedMutexGuard;

use self::{
    outcome::{Built, Outcome},
    restate::Rework,
};
use super::{Head, Room, Rooms, write::txn::TxnKey};
use crate::{
    account::LocalDevice,
    store::{Committed, Error, Position, Row, Write, log::Touch},
};

/// Errors of appending events.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the event breaks an authorization rule")]
    NotAuthorized(#[source] AuthRuleError),
    /// We store such text escaped, but some other servers cannot store it, and would not take the event.
    #[error("the type or the state key holds a NUL")]
    HoldsNul,
    /// Nobody can answer the invitation.
    #[error("the account of {user_id} is deactivated")]
    Deactivated { user_id: OwnedUserId },
    /// See [`invitee`].
    #[error("too many invitations of {user_id} wait for an answer")]
    TooManyInvitations { user_id: OwnedUserId },
    /// See [`invitee`].
    #[error("too many knocks of the user wait for an answer")]
    TooManyKnocks,
    #[error("the event cannot be built")]
    Invalid(#[source] BuildError),
    #[error("the event could not be stored")]
    Storage(#[from] Error),
}

/// The right to append to a room, until it is dropped.
pub struct RoomWriter<'a> {
    pub(super) rooms: &'a Rooms,
    pub room: Arc<Room>,
    head: OwnedMutexGuard<Head>,
    now_ms: i64,
    /// The `origin_server_ts` of appended events, if the sender may choose it.
    date_ms: Option<i64>,
    /// Whether an application service sends the events that are appended.
    is_appservice: bool,
    pending: Vec<Pending>,
    /// The forward extremities after the pending events, if they differ from those of the head.
    extremities: Option<Extremities>,
    /// The part of the write that comes before the pending events.
    rework: Option<Box<Rework>>,
    extra: Vec<Row>,
    /// The touches of `extra`.
    touches: Vec<Touch>,
    is_new_room: bool,
}

/// An event that has been appended but not committed.
struct Pending {
    built: Built,
    outcome: Outcome,
}

impl Rooms {
    /// Waits until it is this caller's turn to append to `room`.
    ///
    /// # Errors
    /// Fails if the room must be loaded again after a failed write, and that fails.
    pub async fn enter(&self, room: &Arc<Room>) -> Result<RoomWriter<'_>, Error> {
        let writer = self.enter_if_there(room).await?;
        writer.ok_or_else(|| Error::damaged("room", format!("{} is missing", room.room_id)))
    }

    /// Enters a room whose creation may have failed.
    ///
    /// # Errors
    /// As [`Self::enter`].
    pub(super) async fn enter_if_there(&self, room: &Arc<Room>) -> Result<Option<RoomWriter<'_>>, Error> {
        let mut room = Arc::clone(room);
        loop {
            let head = Arc::clone(&room.head).lock_owned().await;
            if !room.lineage.is_broken() {
                return Ok(Some(self.writer(room, head, false)));
            }
            drop(head);
            match self.find(&room.room_id).await? {
                Some(found) => room = found,
                None => return Ok(None),
            }
        }
    }

    /// The writer of a room that does not exist until its first commit.
    pub(super) async fn enter_new(&self, room: &Arc<Room>) -> RoomWriter<'_> {
        let head = Arc::clone(&room.head).lock_owned().await;
        self.writer(Arc::clone(room), head, true)
    }

    /// Queues an empty write. Its commit comes after everything that was queued for the room before, and fails if that has
    /// failed.
    pub(super) fn barrier(&self, room: &Room) -> Result<Committed, Error> {
        let lineage = room.lineage.clone();
        self.db.committer().submit(1, |_| Ok(Write::default().in_lineage(lineage)))
    }

    fn writer(&self, room: Arc<Room>, head: OwnedMutexGuard<Head>, is_new_room: bool) -> RoomWriter<'_> {
        let now_ms = self.clock.now_ms();
        let (pending, extra, touches) = (Vec::new(), Vec::new(), Vec::new());
        RoomWriter {
            rooms: self,
            room,
            head,
            now_ms,
            date_ms: None,
            is_appservice: false,
            pending,
            extremities: None,
            rework: None,
            extra,
            touches,
            is_new_room,
        }
    }
}

impl RoomWriter<'_> {
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Sets the date of events that are appended from now on; `None` is the present. The server's own record of the
    /// request has the present date in any case.
    pub fn date(&mut self, date: Option<MilliSecondsSinceUnixEpoch>) {
        self.date_ms = date.map(|date| i64::from(date.get()));
    }

    /// Notes who sends the events that are appended from now on: an application service may invite more than others.
    pub(super) fn note_caller(&mut self, caller: &LocalDevice) {
        self.is_appservice = caller.appservice.is_some();
    }

    /// Adds a row to be committed together with the events, and names what it changes. The events themselves name the
    /// room.
    pub(super) fn add_row(&mut self, row: Row, touch: Option<Touch>) {
        self.extra.push(row);
        self.touches.extend(touch);
    }

    /// Hands everything to the committer as one write, and lets the next writer in. The appended events are visible to
    /// the next writer at once, and to everyone else after the commit.
    ///
    /// # Errors
    /// Fails if the write cannot be queued; nothing is queued then.
    pub fn commit(mut self, txn: Option<TxnKey>) -> Result<Committed, Error> {
        let _span = tracing::debug_span!("room.commit").entered();
        let count = self.pending.len() + usize::from(self.rework.is_some());
        let committer = self.rooms.db.committer().clone();
        committer.submit(count, |first| self.apply(first, txn))
    }

    /// Turns the pending events into rows and changes of memory.
    fn apply(&mut self, first: Position, txn: Option<TxnKey>) -> Result<Write, Error> {
        // If this fails halfway, memory has changes that are not stored.
        let unfinished = self.room.lineage.until_finished();
        let write = rows::apply(self, first, txn)?;
        unfinished.finish();
        Ok(write)
    }

    /// The event that was appended last.
    pub(super) fn last_appended(&self) -> Option<&Pdu> {
        self.pending.last().map(|pending| &**pending.built.pdu())
    }

    /// Returns whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Queues an empty write. Its commit comes after everything that was queued for this room before.
    pub fn barrier(&self) -> Result<Committed, Error> {
        self.rooms.barrier(&self.room)
    }
}

#[cfg(test)]
mod tests;
