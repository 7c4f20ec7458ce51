//! The latest events of a room with their verdicts, shared by all users whose rules are of one class.
//!
//! An event is read and evaluated once for a class, and each user's count takes it from here. Promise: what is here is
//! what reading the timeline again would give. So an event that is redacted is replaced, and the verdicts of a room whose
//! power levels are redacted are thrown away.

mod event;

use std::{
    collections::VecDeque,
    sync::{self, Arc, OnceLock},
};

use ruma::OwnedUserId;
use tokio::sync::Mutex;

pub(super) use self::event::{Effect, Judged};
use self::event::{Redacted, unless_plain};
use super::{
    COLD_EVENTS, Counting,
    steps::{MAX_STEPS, Reach},
};
use crate::{
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    push::rules::{
        compiled::{ClassId, CompiledRules},
        judgement::Judgement,
    },
    room::{
        Room,
        read::{circumstances::Circumstances, threads::is_related, timeline::PlainEvent},
    },
    store::{Error, Position, RoomNid, ids::lock},
};

/// Maximum number of events kept for a room and a class: those of a new count, and some that come after it before the
/// oldest ones go.
const KEPT_EVENTS: usize = COLD_EVENTS + COLD_EVENTS / 4;

/// Maximum number of events in [`JudgedEntry::latest`]: more than a member who waits for news lacks.
const LATEST_EVENTS: usize = 8;

/// Approximate memory of an entry without events.
const EMPTY_BYTES: u64 = 448;

/// The judged events of active rooms; those of a room take 10 to 20 kB.
pub(in crate::push) struct JudgedRooms(Arc<GrowingCache<(RoomNid, ClassId), JudgedEntry>>);

impl JudgedRooms {
    pub(in crate::push) fn new(budget: &Budget) -> Self {
        Self(budget.growing_cache(Part::JudgedEvents))
    }

    pub(super) fn find(&self, room: RoomNid, class: ClassId) -> Option<Arc<JudgedEntry>> {
        self.0.get(&(room, class))
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.0.clear();
    }
}

/// The judged events of a room, for those who add to them and for those who only read.
#[derive(Default)]
pub(super) struct JudgedEntry {
    /// Locked while new events are added, which may read the database: two looks need not do that twice.
    known: Mutex<JudgedRoom>,
    /// The last few of the events, as the last look has left them. A new message makes all members of a room look at once:
    /// with `known` alone, each of them who came while another one added the message would wait, and keep the next one waiting.
    latest: sync::Mutex<JudgedRoom>,
}

impl JudgedEntry {
    /// The events of the room in (`after`, `upto`], if all of them are known, nobody is about to add some, and they are few
    /// enough for a new count.
    pub(super) fn at_once(&self, room: &Room, after: Position, upto: Position) -> Option<Vec<Arc<Judged>>> {
        let find = |known: &JudgedRoom| {
            let events = known.within(after, upto);
            let is_complete = known.has_all(room, after, upto) && events.len() <= COLD_EVENTS;
            is_complete.then(|| events.cloned().collect())
        };
        // The lock of the latest ones is held for a moment only. The other one may be held for long, so nobody waits for it.
        let latest = find(&lock(&self.latest));
        latest.or_else(|| find(&*self.known.try_lock().ok()?))
    }
}

/// The latest events of a room, judged by one class of rules.
struct JudgedRoom {
    /// `events` has all events of the timeline after this position, up to `upto`.
    from: Position,
    upto: Position,
    events: VecDeque<Arc<Judged>>,
    bytes: usize,
}

impl Default for JudgedRoom {
    fn default() -> Self {
        Self::after(Position::BEFORE_ALL)
    }
}

impl JudgedRoom {
    /// A room of which nothing is known but that it goes on after a position.
    fn after(pos: Position) -> Self {
        Self { from: pos, upto: pos, events: VecDeque::new(), bytes: 0 }
    }

    /// The known events after a position, up to another one.
    fn within(&self, after: Position, upto: Position) -> impl ExactSizeIterator<Item = &Arc<Judged>> {
        let start = self.events.partition_point(|event| event.pos <= after);
        let end = self.events.partition_point(|event| event.pos <= upto);
        self.events.range(start..end.max(start))
    }

    /// Returns whether all events of the room in (`after`, `upto`] are known.
    fn has_all(&self, room: &Room, after: Position, upto: Position) -> bool {
        // In a busy server the position goes on while nothing happens in the room.
        self.from <= after && (upto <= self.upto || room.last_pos() <= self.upto)
    }

    fn clear(&mut self, from: Position) {
        self.events.clear();
        (self.bytes, self.from) = (0, from);
    }

    fn push_back(&mut self, event: Arc<Judged>) {
        self.bytes += event.bytes();
        self.events.push_back(event);
    }

    fn push_front(&mut self, event: Arc<Judged>) {
        self.bytes += event.bytes();
        self.events.push_front(event);
    }

    /// Forgets the oldest events beyond [`KEPT_EVENTS`].
    fn trim(&mut self) {
        while self.events.len() > KEPT_EVENTS {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.bytes();
                self.from = oldest.pos;
            }
        }
    }

    /// The last [`LATEST_EVENTS`] of the events.
    fn latest(&self) -> Self {
        let skipped = self.events.len().saturating_sub(LATEST_EVENTS);
        let last_skipped = skipped.checked_sub(1).and_then(|index| self.events.get(index));
        let from = last_skipped.map_or(self.from, |event| event.pos);
        let events: VecDeque<_> = self.events.range(skipped..).cloned().collect();
        let bytes = events.iter().map(|event| event.bytes()).sum();
        Self { from, upto: self.upto, events, bytes }
    }

    /// Applies a redaction to the events that are known.
    fn redact(&mut self, redacted: &Redacted) {
        if redacted.is_power_levels {
            self.clear(self.upto);
        }
        for event in &mut self.events {
            let changed = if event.nid == redacted.nid {
                event.redacted()
            } else if event.may_go_through(redacted.nid) {
                event.unsettled()
            } else {
                continue;
            };
            self.bytes = self.bytes + changed.bytes() - event.bytes();
            *event = Arc::new(changed);
        }
    }
}

/// The judged events of a look.
pub(super) struct Found {
    /// Oldest first.
    pub(super) events: Vec<Arc<Judged>>,
    /// True if there may be older ones in the range.
    pub(super) more: bool,
    pub(super) reach: Reach,
}

/// The work of judging, newest event first.
struct Work {
    /// The steps of the newer events, whenever they were judged.
    steps: usize,
    fresh: usize,
    left: usize,
    reach: Reach,
}

impl Counting<'_> {
    /// The latest events after a position up to the one of this look, at most `limit`, judged by the class of `rules`.
    pub(super) async fn judged(&self, rules: &CompiledRules, after: Position, limit: usize) -> Result<Found, Error> {
        let key = (self.room.nid, rules.class());
        let entry = self.push.judged.0.get_or_default(&key, EMPTY_BYTES);
        let mut known = entry.known.lock().await;
        let mut work = Work { steps: 0, fresh: 0, left: self.budget.steps_left(), reach: Reach::All };
        if known.upto < after {
            *known = JudgedRoom::after(after);
        }
        if known.upto < self.upto {
            self.add_newer(&mut known, rules, limit, &mut work).await?;
        }
        let mut have = known.within(after, self.upto).len();
        while after < known.from && have < limit && work.reach == Reach::All {
            work.steps = known.within(after, self.upto).map(|event| event.steps()).sum();
            self.add_older(&mut known, rules, (after, limit - have), &mut work).await?;
            have = known.within(after, self.upto).len();
        }
        let events: Vec<_> = known.within(after, self.upto).skip(have.saturating_sub(limit)).cloned().collect();
        let more = after < known.from || have > limit;
        known.trim();
        let (bytes, latest) = (known.bytes, known.latest());
        *lock(&entry.latest) = latest;
        drop(known);
        // Also after a look that failed in the middle, which has added events too.
        self.push.judged.0.has_grown(&key, &entry, EMPTY_BYTES + bytes as u64);
        self.budget.spend(work.fresh);
        Ok(Found { events, more, reach: work.reach })
    }

    /// Adds the events after those that are known, the latest `limit` of them.
    async fn add_newer(
        &self,
        known: &mut JudgedRoom,
        rules: &CompiledRules,
        limit: usize,
        work: &mut Work,
    ) -> Result<(), Error> {
        let (new, more) = self.rooms.plain_timeline(self.room, known.upto, self.upto, limit).await?;
        let judged = self.judge(known, rules, &new, work).await?;
        let newest_left_out = new.len().checked_sub(judged.len() + 1).and_then(|index| new.get(index));
        match newest_left_out {
            Some(event) => known.clear(event.pos),
            None if more => known.clear(new.first().map_or(self.upto, |event| Position(event.pos.0 - 1))),
            None => {
                // The new events were read in their present form. The older ones were not.
                for event in &judged {
                    match event.effect(self.rooms, self.room).await? {
                        Effect::None => {}
                        Effect::Redacts(redacted) => known.redact(redacted),
                        Effect::Unknown => known.clear(known.upto),
                    }
                }
            }
        }
        known.upto = self.upto;
        judged.into_iter().for_each(|event| known.push_back(event));
        Ok(())
    }

    /// Adds the events before those that are known: the latest `limit` after a position.
    async fn add_older(
        &self,
        known: &mut JudgedRoom,
        rules: &CompiledRules,
        (after, limit): (Position, usize),
        work: &mut Work,
    ) -> Result<(), Error> {
        let (old, more) = self.rooms.plain_timeline(self.room, after, known.from, limit).await?;
        let judged = self.judge(known, rules, &old, work).await?;
        let newest_left_out = old.len().checked_sub(judged.len() + 1).and_then(|index| old.get(index));
        known.from = match newest_left_out {
            Some(event) => event.pos,
            None if more => old.first().map_or(known.from, |event| Position(event.pos.0 - 1)),
            None => after,
        };
        judged.into_iter().rev().for_each(|event| known.push_front(event));
        Ok(())
    }

    /// Judges events, newest first, until the steps end. Returns those that were judged, oldest first.
    async fn judge(
        &self,
        known: &JudgedRoom,
        rules: &CompiledRules,
        events: &[PlainEvent],
        work: &mut Work,
    ) -> Result<Vec<Arc<Judged>>, Error> {
        let Some(first) = events.first() else { return Ok(Vec::new()) };
        let found = self.rooms.circumstances(self.room, Position(first.pos.0 - 1)).await?;
        let mut judged: Vec<Arc<Judged>> = Vec::with_capacity(events.len());
        for event in events.iter().rev() {
            if work.steps > MAX_STEPS {
                work.reach = Reach::Latest;
                break;
            }
            if work.fresh >= work.left {
                work.reach = Reach::OutOfBudget;
                break;
            }
            // People write several messages in a row: their ID is kept once.
            let last = judged.last().or_else(|| known.events.back()).filter(|last| last.sender() == event.pdu.sender);
            let sender = last.map_or_else(|| Arc::new(event.pdu.sender.clone()), |last| Arc::clone(&last.sender));
            let mut event = self.judge_one(rules, event, sender, &found).await?;
            if let Some(last) = judged.last().or_else(|| known.events.back()) {
                event.judgement.share_rules(&last.judgement);
            }
            work.steps += event.steps();
            work.fresh += event.steps();
            judged.push(Arc::new(event));
        }
        judged.reverse();
        Ok(judged)
    }

    async fn judge_one(
        &self,
        rules: &CompiledRules,
        event: &PlainEvent,
        sender: Arc<OwnedUserId>,
        found: &[Circumstances],
    ) -> Result<Judged, Error> {
        let PlainEvent { pos, pdu, is_redacted, .. } = event;
        let (mut judgement, mut steps) = (Judgement::default(), 0);
        if !is_redacted {
            let held = Circumstances::at(found, *pos)
                .ok_or_else(|| Error::damaged("state log", "it does not reach an event of the timeline"))?;
            judgement = self.push.evaluator.judge(self.rooms, self.room, rules, event, held, &mut steps).await?;
        }
        let conversation = if *is_redacted || !is_related(pdu) {
            OnceLock::from(None)
        } else if judgement.may_notify() {
            OnceLock::from(unless_plain(self.rooms.conversation(self.room, pdu).await?))
        } else {
            OnceLock::new()
        };
        Ok(Judged::new(event, sender, (judgement, steps), conversation))
    }
}

#[cfg(test)]
mod tests;
