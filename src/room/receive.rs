//! Receiving: what an event of another server does to its room.
//!
//! [`sabha_federation::receive`] decides about events. Here is what it needs to know of a room, and what becomes of its
//! decisions: [`Rooms::receive`] asks for one outside the turn of the room and again in it, and stores it in one write.
//!
//! - [`reader`]: a room's events, graph and states, as decisions read them.
//! - [`ids`]: the numbers that decisions give out, and resolutions on other threads.
//! - [`head`]: the end of a room as it is outside its turn.
//!
//! Nothing here asks another server. An event that needs one is given back ([`Received::Waits`]).

mod head;
mod ids;
pub mod reader;

use std::sync::Arc;

use sabha_federation::{
    receive::{
        Decision, DropReason, Incoming, Judged, Missing, Mode, ReceiveError, RoomFacts, Settled, Verdict, foresee,
        judge, settle,
    },
    standing::Flags,
};
use tracing::{Instrument as _, debug_span};

use self::{head::Seen, reader::RoomReads};
use super::{Room, Rooms, write::RoomWriter};
use crate::store::{Error, EventNid};

/// The number of times that an event is judged because the room has changed meanwhile. A room that changes more often is so
/// busy that its next events had better go first.
const MOST_JUDGED: usize = 10;

/// The result of [`Rooms::receive`].
#[derive(Debug)]
pub enum Received {
    /// The event is stored now, whatever was decided about it.
    Stored { nid: EventNid, flags: Flags },
    /// The event was stored before.
    Known { nid: EventNid, flags: Flags },
    /// The event can never be stored.
    Dropped(DropReason),
    /// Other events must come first. The event is given back.
    Waits { missing: Missing, event: Box<Incoming> },
}

/// Why an event was not stored. It may be received again.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveFailure {
    #[error("could not decide about the event")]
    Decide(#[from] ReceiveError<Error>),
    #[error("the event could not be stored")]
    Storage(#[from] Error),
    /// Places in gaps are not given out yet.
    #[error("events of history cannot be stored yet")]
    OfHistory,
    #[error("the room changed {MOST_JUDGED} times while the event was judged")]
    RoomTooBusy,
}

/// The end of one try to store an event.
enum Tried {
    Done(Received),
    /// The room has changed in a way that matters to the verdict.
    Stale(Box<Incoming>),
}

impl Rooms {
    /// Decides about a verified event of another server, and stores it with everything that follows from it. Returns once it is
    /// on the disk.
    ///
    /// # Errors
    /// When deciding fails, when the database fails, or when the room is too busy. Nothing is stored then.
    pub async fn receive(&self, room: &Arc<Room>, incoming: Incoming) -> Result<Received, ReceiveFailure> {
        if matches!(incoming.mode, Mode::History(_)) {
            return Err(ReceiveFailure::OfHistory);
        }
        let event_id = incoming.event.pdu().event_id.clone();
        let span = debug_span!("room.receive", %event_id, room_id = %room.room_id);
        self.receive_again(room, incoming).instrument(span).await
    }

    async fn receive_again(&self, room: &Arc<Room>, incoming: Incoming) -> Result<Received, ReceiveFailure> {
        let mut incoming = Box::new(incoming);
        for _ in 0..MOST_JUDGED {
            let (room, seen) = self.see(room).await?;
            let reads = self.reads(&room);
            let facts = self.facts(&reads, &seen).await?;
            let verdict = judge(&reads, &facts, seen.view(), (*incoming).clone(), &reads);
            let judged = match verdict.instrument(debug_span!("receive.judge")).await? {
                Verdict::Judged(judged) => judged,
                Verdict::Known { nid, flags } => return self.known(&room, nid, flags).await,
                Verdict::Dropped(reason) => return Ok(Received::Dropped(reason)),
                Verdict::Wait { missing, event } => return Ok(Received::Waits { missing, event }),
            };
            match self.settle(&room, &reads, &facts, judged, &incoming).await? {
                Tried::Done(received) => return Ok(received),
                Tried::Stale(event) => incoming = event,
            }
        }
        Err(ReceiveFailure::RoomTooBusy)
    }

    /// Settles a judged event in the turn of the room, and stores it.
    async fn settle(
        &self,
        room: &Arc<Room>,
        reads: &RoomReads<'_>,
        facts: &RoomFacts<'_>,
        mut judged: Box<Judged>,
        incoming: &Incoming,
    ) -> Result<Tried, ReceiveFailure> {
        // The third time settles it.
        loop {
            let writer = self.enter_knowing(room).await?;
            if !Arc::ptr_eq(&writer.room, room) {
                // A write before it has failed, and the event was judged by what that write would have stored.
                return Ok(Tried::Stale(Box::new(incoming.clone())));
            }
            let settled = settle(reads, facts, writer.head(), judged, reads);
            match settled.instrument(debug_span!("receive.settle")).await? {
                Settled::Store(decision) => return Ok(Tried::Done(store(writer, *decision).await?)),
                Settled::Known { nid, flags } => {
                    drop(writer);
                    return Ok(Tried::Done(self.known(room, nid, flags).await?));
                }
                Settled::Stale(event) => return Ok(Tried::Stale(event)),
                Settled::Moved(moved) => {
                    let seen = Seen::of(&writer);
                    drop(writer);
                    judged = moved;
                    foresee(reads, facts, seen.view(), &mut judged, reads).await?;
                }
            }
        }
    }

    /// The answer about an event that was stored before, once it is on the disk: the other server will not send it again.
    async fn known(&self, room: &Room, nid: EventNid, flags: Flags) -> Result<Received, ReceiveFailure> {
        if room.queued.get(nid).is_some() {
            self.barrier(room)?.wait().await?;
        }
        Ok(Received::Known { nid, flags })
    }

    /// The room as it is now. It may be another object, if a write has failed.
    async fn see(&self, room: &Arc<Room>) -> Result<(Arc<Room>, Seen), Error> {
        let writer = self.enter_knowing(room).await?;
        Ok((Arc::clone(&writer.room), Seen::of(&writer)))
    }

    async fn facts<'a>(&'a self, reads: &RoomReads<'a>, seen: &Seen) -> Result<RoomFacts<'a>, Error> {
        let room = reads.room();
        Ok(RoomFacts {
            rules: &room.rules,
            room_id: &room.room_id,
            create: reads.current("m.room.create", "", seen).await?,
            secret: &self.state_hash_key,
            resolutions: &self.resolutions,
        })
    }
}

async fn store(mut writer: RoomWriter<'_>, decision: Decision) -> Result<Received, ReceiveFailure> {
    let (nid, flags) = (decision.nid, decision.flags);
    if let Some(refused) = &decision.refused {
        tracing::debug!(rule = %crate::report::Report(refused), ?flags, "an event breaks a rule of its room");
    }
    if let Some(alarm) = &decision.alarm {
        metrics::counter!("sabha_resolution_alarms_total").increment(1);
        tracing::warn!(
            room_id = %writer.room.room_id,
            event_id = %decision.event.pdu().event_id,
            removed = alarm.removed,
            no_admin_left = alarm.no_admin_left,
            "branches of a room met, and their states became one that many members or all admins have lost by"
        );
    }
    writer.take_decision(decision).await?;
    writer.commit(None)?.wait().await?;
    Ok(Received::Stored { nid, flags })
}

#[cfg(test)]
mod tests;
