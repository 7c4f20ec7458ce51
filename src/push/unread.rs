//! Unread counts ([spec]): how many events of a room a user is notified of and has not read.
//!
//! Promises: a count is what counting anew from the timeline gives; counting takes at most `MAX_STEPS` for a room,
//! `MAX_STEPS_IN_ALL` for an answer ([`hold`]), and those of one event, whatever the rules and the events are; nothing is
//! written for it, whoever sends; a user who follows a room costs the evaluation of each new event, and no database.
//!
//! An event counts if the user's push rules notify of it, as they are now and as the room was when the event was sent; if it
//! is after the user's join and after what they have read of its thread; and if it was not redacted, nor sent by the user or
//! by somebody whom they ignore. Who sends a message has read what is before it in the same thread. Counting starts from the
//! latest [`MAX_EVENTS`] events when it starts anew: older ones no longer count then. Where `MAX_STEPS` do not reach as far
//! back, older ones do not count either. Where only the [`StepBudget`] of an answer ended, the count is made up for by the
//! next look at the room.
//!
//! The tally of what is unread ([`tally`]) is kept in memory: new events are added, receipts and redactions take out.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

mod hold;
mod tally;

use std::{collections::HashSet, convert::Infallible, sync::Arc};

use quick_cache::{Weighter, sync::Cache};
use tokio::sync::Mutex;

use self::{hold::Reach, tally::Tally};
use super::{Push, UserRules, evaluate::Verdict};
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

/// How many events are looked at, newest first, when counting starts anew, and how many notifications are counted. Badges
/// say "99+" long before.
pub const MAX_EVENTS: usize = 1_000;

/// How much is remembered: notifications, of 48 bytes, and for each pair of user and room [`ENTRY_WEIGHT`] more.
const REMEMBERED: u64 = 1_000_000;

/// What a pair of user and room takes without notifications, in the size of these.
const ENTRY_WEIGHT: u64 = 8;

/// About how many pairs fit into [`REMEMBERED`].
const REMEMBERED_PAIRS: usize = 50_000;

/// How many events that others relate to are remembered for a pair; with more, the next one counts anew.
const MAX_THROUGH: usize = 1_000;

/// A user's tally of a room. Held while new events are added, which may read the database: two devices of a user need not do
/// that twice.
type Entry = Arc<Mutex<Option<Counted>>>;

/// An entry with the number of notifications that the cache has made room for. What a value weighs must not change while it
/// is in the cache, so an entry that has grown is put in again.
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

/// The tallies of users who are here.
pub(super) struct Tallies(Cache<(UserNid, RoomNid), Slot, ByNotifications>);

impl Default for Tallies {
    fn default() -> Self {
        Self(Cache::with_weighter(REMEMBERED_PAIRS, REMEMBERED, ByNotifications))
    }
}

/// What was counted, and what that rests on.
struct Counted {
    basis: Basis,
    /// Everything up to here was looked at.
    upto: Position,
    tally: Tally,
    /// Events that decided to which thread another belongs.
    through: HashSet<EventNid>,
    owed: Owed,
}

/// What a look did not do because its [`StepBudget`] ended. The next one does it, and says that the counts have changed: the
/// client was told others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// To add what is new: what was counted before still holds.
    News,
    /// To count anew: only the latest events were held against the rules, or none.
    All,
}

/// When one of these is another, all is counted anew.
pub(super) struct Basis {
    pub(super) rules: Arc<UserRules>,
    pub(super) ignored: Arc<Ignored>,
    pub(super) joined_at: Position,
}

impl PartialEq for Basis {
    /// By version: what fell out of a cache and was read again is the same.
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
    /// What the user has not read of a room as of `upto`; nothing if they are not in it. Counts as far as `budget` reaches.
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
    /// What was counted before no longer holds.
    CountAnew,
}

impl Look<'_> {
    /// Counts from the user's join, or from what they have read of the whole room.
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
            // Only for adding to this tally, which will not be: so it is kept, however many these are.
            counted.through.clear();
        }
        counted.upto = counted.upto.max(self.upto);
        Ok(counted)
    }

    /// Whether there is something in the room after a position, and no step left to look at it.
    fn is_beyond_budget(&self, after: Position) -> bool {
        self.budget.is_spent() && after < self.room.last_pos()
    }

    /// Adds what is new since the last look.
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
                // Counting anew would not reach what was counted before.
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

    /// Takes out what an event redacts.
    async fn redact(&self, counted: &mut Counted, pos: Position, event: &StoredEvent) -> Result<Outcome, Error> {
        let Some(event_id) = &event.pdu.redacts else { return Ok(Outcome::Counted) };
        let target = self.rooms.find_in_timeline(self.room, event_id).await?;
        let Some(target) = target.filter(|target| target.redacted_because.is_some()) else {
            return Ok(Outcome::Counted);
        };
        // The user's own events say what they have read, and others in which thread an event is. Not any more.
        if target.sender() == self.user.user_id || counted.through.contains(&target.nid) {
            return Ok(Outcome::CountAnew);
        }
        counted.tally.redacted(pos, target.nid);
        Ok(Outcome::Counted)
    }

    /// Adds events with what the rules say about them, oldest first, all newer than those before.
    async fn add(&self, counted: &mut Counted, events: &[Placed], verdicts: &[Verdict]) -> Result<(), Error> {
        for ((pos, event), verdict) in events.iter().zip(verdicts) {
            let is_redaction = event.pdu.event_type == "m.room.redaction";
            if event.redacted_because.is_some() || counted.basis.ignored.contains(event.sender()) {
                continue;
            }
            if event.sender() == self.user.user_id {
                // Others may change a member event or a topic without having looked at the room, and so may they.
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
