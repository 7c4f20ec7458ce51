//! Unread counts ([spec]): the number of events in a room that a user is notified of and has not read.
//!
//! Promises:
//!
//! - A count always equals a new count of the timeline.
//! - Counting takes at most `MAX_STEPS` for a room and `MAX_STEPS_IN_ALL` for an answer ([`hold`]), plus the steps of
//!   one event, for any rules and events.
//! - Sending an event writes nothing for it. A user who follows a room costs the evaluation of each new event, and no
//!   query.
//!
//! An event counts if all of these hold:
//!
//! - The user's current push rules notify of it, evaluated with the state of the room when it was sent.
//! - It is after the user's join, and after the user's receipts for its thread.
//! - It is neither redacted, nor sent by the user or by somebody whom they ignore.
//!
//! Sending a message marks the earlier events in the same thread as read. A new count starts with the latest
//! [`MAX_EVENTS`] events; older ones no longer count. If `MAX_STEPS` ends before the oldest of them, the rest does not
//! count either. If only the [`StepBudget`] of an answer ends, the next look at the room completes the count.
//!
//! The tally of unread events ([`tally`]) is kept in memory. New events are added to it; receipts and redactions remove
//! events.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

mod hold;
mod tally;

use std::{collections::HashSet, convert::Infallible, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use tokio::sync::Mutex;

use self::{hold::Reach, tally::Tally};
use super::{Push, UserRules, rules::evaluate::Verdict};
use crate::{
    account::ignored::Ignored,
    ephemeral::{Ephemeral, receipts::Reads},
    room::{Room, Rooms, event::StoredEvent, timeline::Placed, visibility::Sight},
    store::{Error, EventNid, Position, RoomNid, UserNid, vocabulary::User},
};

pub use self::{
    hold::StepBudget,
    tally::{Counts, Unread},
};

/// Maximum number of events in a new count, newest first, and of counted notifications. Badges say "99+" long before.
pub const MAX_EVENTS: usize = 1_000;

/// Capacity of the cache: notifications of 48 bytes, and [`ENTRY_WEIGHT`] more for each pair of user and room.
const REMEMBERED: u64 = 1_000_000;

/// The weight of a pair of user and room without notifications, in notifications.
const ENTRY_WEIGHT: u64 = 8;

/// Approximate number of pairs that fit into [`REMEMBERED`].
const REMEMBERED_PAIRS: usize = 50_000;

/// Maximum number of related events kept for a pair. With more, the next look counts anew.
const MAX_THROUGH: usize = 1_000;

/// A user's tally of a room. Locked while new events are added, which may read the database: two devices of a user need
/// not do that twice.
type Entry = Arc<Mutex<Option<Counted>>>;

/// An entry with the number of notifications that the cache has reserved for it. A value must not change its weight
/// while it is in the cache, so an entry that has grown is inserted again.
#[derive(Clone, Default)]
struct Slot {
    entry: Entry,
    room_for: u64,
}

#[derive(Clone)]
struct ByNotifications;

impl Weighter<(UserNid, RoomNid), Slot> for ByNotifications {
    fn weight(&self, _: &(UserNid, RoomNid), slot: &Slot) -> u64 {
        ENTRY_WEIGHT + slot.room_for
    }
}

/// The tallies of active users.
pub(super) struct Tallies(Cache<(UserNid, RoomNid), Slot, ByNotifications>);

impl Default for Tallies {
    fn default() -> Self {
        Self(Cache::with_weighter(REMEMBERED_PAIRS, REMEMBERED, ByNotifications))
    }
}

/// A count, and what it depends on.
struct Counted {
    basis: Basis,
    /// All events up to here are counted.
    upto: Position,
    tally: Tally,
    /// Events through which another event belongs to its thread.
    through: HashSet<EventNid>,
    owed: Owed,
}

/// The work that a look left undone because its [`StepBudget`] ended. The next look does it and reports changed counts,
/// because the client got others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// Add the new events. The earlier count is still right.
    News,
    /// Count anew. Only the latest events were evaluated, or none.
    All,
}

/// The inputs of a count. If one of them changes, everything is counted anew.
pub(super) struct Basis {
    pub(super) rules: Arc<UserRules>,
    pub(super) ignored: Arc<Ignored>,
    pub(super) joined_at: Position,
}

impl PartialEq for Basis {
    /// Compares versions: data that was evicted from a cache and read again is equal.
    fn eq(&self, other: &Self) -> bool {
        self.rules.version == other.rules.version
            && self.ignored.version() == other.ignored.version()
            && self.joined_at == other.joined_at
    }
}

/// One look at a room by one user.
struct Look<'a> {
    push: &'a Push,
    rooms: &'a Rooms,
    room: &'a Room,
    user: &'a User,
    reads: Reads,
    upto: Position,
    budget: &'a StepBudget,
}

impl Push {
    /// The unread events of a room for the user as of `upto`; none if they are not joined. Counts as far as `budget`
    /// reaches.
    pub async fn unread(
        &self,
        (rooms, ephemeral): (&Rooms, &Ephemeral),
        (room, sight): (&Room, &Sight),
        user: &User,
        upto: Position,
        budget: &StepBudget,
    ) -> Result<Unread, Error> {
        let Some(joined_at) = sight.joined_since(upto) else { return Ok(Unread::default()) };
        let (rules, ignored) = (self.rules(user).await?, self.data.ignored(user).await?);
        let reads = ephemeral.reads(room.nid, user.nid).await?;
        let look = Look { push: self, rooms, room, user, reads, upto, budget };
        let key = (user.nid, room.nid);
        let Ok(slot) = self.tallies.0.get_or_insert_with(&key, || Ok::<_, Infallible>(Slot::default()));
        let mut held = slot.entry.lock().await;

        let basis = Basis { rules, ignored, joined_at };
        let read_up_to = |thread: &str| look.reads.up_to(thread);
        let mut counted = match held.take() {
            Some(mut counted) if counted.basis == basis && counted.owed != Owed::All => {
                match look.go_on(&mut counted).await? {
                    Outcome::Counted => counted,
                    Outcome::CountAnew => {
                        let mut counted = look.count_anew(basis).await?;
                        counted.tally.changed(upto);
                        counted
                    }
                }
            }
            Some(mut old) => {
                old.tally.read(read_up_to);
                let mut counted = look.count_anew(basis).await?;
                if !counted.tally.counts_as(&old.tally) {
                    counted.tally.changed(upto);
                }
                counted
            }
            None => look.count_anew(basis).await?,
        };
        counted.tally.read(read_up_to);
        let unread = counted.tally.unread(upto);
        let room_for = match counted.tally.len() as u64 {
            0 => 0,
            notifications => notifications.next_power_of_two(),
        };
        if counted.through.len() <= MAX_THROUGH {
            *held = Some(counted);
        }
        drop(held);
        if room_for != slot.room_for {
            self.tallies.0.insert(key, Slot { room_for, ..slot });
        }
        Ok(unread)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Counted,
    /// The earlier count is no longer right.
    CountAnew,
}

impl Look<'_> {
    /// Counts from the user's join, or from their receipt for the whole room.
    async fn count_anew(&self, basis: Basis) -> Result<Counted, Error> {
        let start = basis.joined_at.max(self.reads.up_to(""));
        let (tally, through) = (Tally::default(), HashSet::new());
        let mut counted = Counted { basis, upto: start, tally, through, owed: Owed::Nothing };
        if self.is_beyond_budget(start) {
            counted.owed = Owed::All;
            return Ok(counted);
        }
        let (events, _) = self.rooms.timeline(self.room, start, self.upto, MAX_EVENTS).await?;
        let held = self.hold(&counted.basis, &events).await?;
        self.add(&mut counted, &events, &held.verdicts).await?;
        if held.reach == Reach::OutOfBudget {
            counted.owed = Owed::All;
            // These only serve to add events to this tally, and it will be counted anew. Cleared, so that their number
            // does not stop the tally from being kept.
            counted.through.clear();
        }
        counted.upto = counted.upto.max(self.upto);
        Ok(counted)
    }

    /// Returns whether the room has events after a position but the budget has no steps left for them.
    fn is_beyond_budget(&self, after: Position) -> bool {
        self.budget.is_spent() && after < self.room.last_pos()
    }

    /// Adds the events since the last look.
    async fn go_on(&self, counted: &mut Counted) -> Result<Outcome, Error> {
        if self.upto <= counted.upto {
            return Ok(Outcome::Counted);
        }
        if self.is_beyond_budget(counted.upto) {
            counted.owed = Owed::News;
            return Ok(Outcome::Counted);
        }
        let (events, more) = self.rooms.timeline(self.room, counted.upto, self.upto, MAX_EVENTS).await?;
        if more {
            return Ok(Outcome::CountAnew);
        }
        for (pos, event) in &events {
            if self.redact(counted, *pos, event).await? == Outcome::CountAnew {
                return Ok(Outcome::CountAnew);
            }
        }
        let held = self.hold(&counted.basis, &events).await?;
        match held.reach {
            Reach::All => {}
            Reach::Latest => {
                // A new count would not reach the events that were counted before.
                counted.tally = Tally::default();
                counted.tally.changed(self.upto);
            }
            Reach::OutOfBudget => {
                counted.owed = Owed::News;
                return Ok(Outcome::Counted);
            }
        }
        self.add(counted, &events, &held.verdicts).await?;
        counted.upto = self.upto;
        if std::mem::replace(&mut counted.owed, Owed::Nothing) == Owed::News {
            counted.tally.changed(self.upto);
        }
        Ok(Outcome::Counted)
    }

    /// Removes the event that `event` redacts.
    async fn redact(&self, counted: &mut Counted, pos: Position, event: &StoredEvent) -> Result<Outcome, Error> {
        let Some(event_id) = &event.pdu.redacts else { return Ok(Outcome::Counted) };
        let target = self.rooms.find_in_timeline(self.room, event_id).await?;
        let Some(target) = target.filter(|target| target.redacted_because.is_some()) else {
            return Ok(Outcome::Counted);
        };
        // The user's own events say what they have read, and related events say to which thread an event belongs. The
        // redacted event no longer does.
        if target.sender() == self.user.user_id || counted.through.contains(&target.nid) {
            return Ok(Outcome::CountAnew);
        }
        counted.tally.redacted(pos, target.nid);
        Ok(Outcome::Counted)
    }

    /// Adds events with their verdicts, oldest first. All must be newer than the events added before.
    async fn add(&self, counted: &mut Counted, events: &[Placed], verdicts: &[Verdict]) -> Result<(), Error> {
        for ((pos, event), verdict) in events.iter().zip(verdicts) {
            let is_redaction = event.pdu.event_type == "m.room.redaction";
            if event.redacted_because.is_some() || counted.basis.ignored.contains(event.sender()) {
                continue;
            }
            if event.sender() == self.user.user_id {
                // A state event, such as a membership or topic change, or a redaction can be sent without looking at
                // the room, so it marks nothing as read.
                if event.pdu.state_key.is_none() && !is_redaction {
                    let conversation = self.rooms.conversation(self.room, event).await?;
                    counted.through.extend(conversation.through);
                    counted.tally.sent(*pos, &conversation.thread);
                }
            } else if verdict.notify {
                let conversation = self.rooms.conversation(self.room, event).await?;
                counted.through.extend(conversation.through);
                counted.tally.notified(*pos, event.nid, conversation.thread, verdict.highlight);
            }
        }
        Ok(())
    }
}
