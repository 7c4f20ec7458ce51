//! Stating stored events anew: when what was missing has come, their verdicts and the states before them are computed again.
//!
//! Promise: rows, memory, the room's state and its forward extremities change in one write. That write has a position of its
//! own, before those of its events.
//!
//! An event that was rejected and is accepted now is not restated. It is accepted as an event that was stored before
//! ([`Outcome::stored_before`](super::outcome::Outcome::stored_before)), because it gets a new place, and clients are told.

use std::{collections::BTreeMap, sync::Arc};

use sabha_federation::{
    graph::Extremity,
    sides::Side,
    standing::{Flags, Standing, StateAt},
};

use super::{RoomWriter, jump::Jumping, outcome::KeyChange, rows::Making};
use crate::store::{
    Error, EventNid, Position, TimelinePlace,
    events::{self, FixedRow},
    log::Touch,
};

/// The `sub` in the touch of an event that is stated anew. It is none of the line, because the event is no news.
const NO_NEWS: i64 = -1;

/// A stored event with its new standing.
#[derive(Debug, Clone)]
pub struct Restated {
    pub nid: EventNid,
    pub flags: Flags,
    /// Its place until now. `None`: it has none, or has lost it. Its row in `timeline` stays, and readers skip it.
    pub place: Option<TimelinePlace>,
    pub before: StateAt,
    /// The stored events of this room among its previous ones, of which there may be more now.
    pub prev: Vec<EventNid>,
}

/// The decisions about events that are stated anew.
#[derive(Default)]
pub struct Restatement {
    pub events: Vec<Restated>,
    pub sides: Vec<Arc<Side>>,
    /// The changes of the room's resolved state, at most one for each key. None if there is a jump in the same write.
    pub changes: Vec<KeyChange>,
    /// Events that are forward extremities again, because no accepted event covers them any more.
    pub given_back: Vec<Extremity>,
    /// Forward extremities that are none any more.
    pub gone: Vec<EventNid>,
    /// Set if an event was rejected and is not now, or the other way round. States that were resolved before do not count
    /// any more then.
    pub rejects_anew: bool,
}

/// The part of a write that comes before its events.
#[derive(Default)]
pub(super) struct Rework {
    /// The events' rows as they are now, and their standings.
    restated: Vec<(events::EventColumns, Standing)>,
    sides: Vec<Arc<Side>>,
    pub(super) changes: Vec<KeyChange>,
    rejects_anew: bool,
    pub(super) jump: Option<Jumping>,
}

impl RoomWriter<'_> {
    /// Adds a restatement to what will be committed, before any event.
    ///
    /// # Errors
    /// [`Error::Damaged`] if an event is not stored in the room, or no forward extremity would be left. Errors of the
    /// database. Nothing is added then.
    pub async fn restate(&mut self, restatement: Restatement) -> Result<(), Error> {
        debug_assert!(self.pending.is_empty(), "events follow on what is restated");
        let Restatement { events, sides, changes, given_back, gone, rejects_anew } = restatement;
        let restated = self.restated(events).await?;
        self.count_servers(changes.iter().filter_map(|change| change.member.as_ref())).await?;
        if !given_back.is_empty() || !gone.is_empty() {
            let mut extremities = self.extremities().clone();
            for event in given_back {
                extremities.accept(Some(event), &[]).map_err(|error| self.none_left(error))?;
            }
            extremities.accept(None, &gone).map_err(|error| self.none_left(error))?;
            self.extremities = Some(extremities);
        }
        self.no_longer_absent(&changes);
        let rework = self.rework.get_or_insert_default();
        debug_assert!(rework.jump.is_none() || changes.is_empty(), "nothing else changes at the position of a jump");
        rework.restated.extend(restated);
        rework.sides.extend(sides);
        rework.changes.extend(changes);
        rework.rejects_anew |= rejects_anew;
        Ok(())
    }

    /// The new rows of these events.
    async fn restated(&self, events: Vec<Restated>) -> Result<Vec<(events::EventColumns, Standing)>, Error> {
        let nids: Vec<EventNid> = events.iter().map(|event| event.nid).collect();
        let mut stored = self.fixed_rows(&nids).await?;
        if stored.len() < nids.len() {
            // The others are on their way to the disk.
            self.barrier()?.wait().await?;
            stored = self.fixed_rows(&nids).await?;
        }
        let row = |Restated { nid, flags, place, before, prev }| {
            let found = stored.remove(&nid).filter(|row| row.room_nid == self.room.nid.0);
            let missing = || Error::damaged("event", format!("{} is missing in {}", nid.0, self.room.room_id));
            let standing = Standing { flags, place, before };
            Ok((found.ok_or_else(missing)?.restated(standing, &prev), standing))
        };
        events.into_iter().map(row).collect()
    }

    async fn fixed_rows(&self, nids: &[EventNid]) -> Result<BTreeMap<EventNid, FixedRow>, Error> {
        let mut reader = self.rooms.db.read().await?;
        let rows = events::fixed(&mut reader.conn(), nids).await?;
        Ok(rows.into_iter().map(|row| (EventNid(row.event_nid), row)).collect())
    }
}

impl Making<'_> {
    /// Adds what comes before the events.
    pub(super) fn rework(&mut self, rework: Rework, pos: Position) -> Result<(), Error> {
        let Rework { restated, sides, changes, rejects_anew, jump } = rework;
        self.write.set_position(pos);
        let room = self.room.nid;
        if !restated.is_empty() || !sides.is_empty() {
            // Before the touches of the events, as in `add_graph`.
            self.write.touch(Touch::Graph { room });
        }
        self.add_sides(&sides);
        for (columns, standing) in restated {
            let event = columns.event_nid;
            self.write.touch(Touch::Event { room, event, sub: NO_NEWS, flags: standing.flags.bits() });
            self.write.push(columns.row());
            self.effects.restated.push((pos, event, standing));
        }
        if rejects_anew {
            self.head.reject_epoch += 1;
            self.has_rejected_anew = true;
        }
        if !changes.is_empty() {
            self.head.last_pos = pos;
        }
        for change in changes {
            self.change_state(&change, pos, None)?;
        }
        match jump {
            Some(jump) => self.jump(jump, pos),
            None => Ok(()),
        }
    }
}
