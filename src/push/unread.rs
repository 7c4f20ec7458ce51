//! Unread counts ([spec]): the number of events in a room that a user is notified of and has not read.
//!
//! Promises:
//!
//! - A count has every event that counts among the latest [`COLD_EVENTS`] of the timeline, and none that does not count.
//!   A count that is kept goes on to more events, up to [`MAX_EVENTS`]. A new count starts with the latest
//!   [`COLD_EVENTS`]; older events then no longer count.
//! - Counting takes at most `MAX_STEPS` for a room and `MAX_STEPS_IN_ALL` for an answer ([`steps`]), plus the steps of
//!   one event, for any rules and events.
//! - Sending an event writes nothing for it. A user who follows a room costs no query.
//! - An event is evaluated once for each class of rules ([`judged`]). A user is looked at alone only where the event may
//!   name them.
//!
//! An event counts if all of these hold:
//!
//! - The user's current push rules notify of it, evaluated with the state of the room when it was sent.
//! - It is after the user's join, and after the user's receipts for its thread.
//! - It is neither redacted, nor sent by the user or by somebody whom they ignore.
//!
//! Sending a message marks the earlier events in the same thread as read. If `MAX_STEPS` ends before the oldest event of
//! a count, the rest does not count either. If only the [`WorkBudget`] of an answer ends, the next look at the room
//! completes the count.
//!
//! The tally of unread events ([`tally`]) is kept in memory ([`counting`]). New events are added to it; receipts and redactions
//! remove events. Tallies that took many events are also stored ([`stored`]), so that a restart does not count them again.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

mod counting;
mod in_memory;
mod judged;
mod steps;
mod stored;
mod tally;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Mutex;

use self::{counting::Counting, judged::Judged, tally::Tally};
use super::{Push, UserRules, rules::evaluate::Verdict};
use crate::{
    account_data::ignored::Ignored,
    ephemeral::Ephemeral,
    memory::{
        budget::{Budget, Part},
        growing::GrowingCache,
    },
    room::{
        Room, Rooms,
        read::{threads::Conversation, visibility::Sight},
    },
    store::{Error, EventNid, Position, RoomNid, UserNid, vocabulary::User},
};

pub use self::{
    in_memory::Joined,
    steps::WorkBudget,
    tally::{Counts, Unread},
};
pub(super) use self::{judged::JudgedRooms, stored::Stored};

/// Maximum number of events in a new count, newest first. Badges say "99+", and a room costs no more than this however
/// long nobody has looked at it.
pub const COLD_EVENTS: usize = 100;

/// Maximum number of counted notifications, and of events that are added to an earlier count at once.
pub const MAX_EVENTS: usize = 1_000;

/// Approximate memory of a pair of user and room without notifications.
const EMPTY_BYTES: u64 = 400;

/// Approximate memory of a notification.
const NOTIFICATION_BYTES: u64 = 48;

/// Memory of a related event in [`Counted::through`].
const THROUGH_BYTES: u64 = 10;

/// Maximum number of related events kept for a pair. With more, the next look counts anew.
const MAX_THROUGH: usize = 1_000;

/// A user's tally of a room.
#[derive(Default)]
struct Entry {
    /// Set by each look, and cleared by the search for tallies that nobody looks at.
    is_looked_at: AtomicBool,
    /// Locked while new events are added, which may read the database: two devices of a user need not do that twice.
    counted: Mutex<Option<Counted>>,
}

impl Counted {
    /// Approximate memory that it takes.
    fn bytes(&self) -> u64 {
        let notifications = NOTIFICATION_BYTES * self.tally.len().next_power_of_two() as u64;
        EMPTY_BYTES + notifications + THROUGH_BYTES * self.through.capacity() as u64
    }

    /// Adds an event that matters, after all others.
    fn add(&mut self, event: &Judged, verdict: Verdict, conversation: Option<&Conversation>, user: &User) {
        self.through.extend(conversation.iter().flat_map(|conversation| &conversation.through));
        let thread = conversation.and_then(|conversation| conversation.thread.clone());
        if event.sender() == user.user_id {
            self.tally.sent(event.pos, &thread);
        } else {
            self.tally.notified(event.pos, event.nid, thread, verdict.highlight);
        }
    }
}

/// The tallies of active users.
pub(super) struct Tallies(Arc<GrowingCache<(UserNid, RoomNid), Entry>>);

impl Tallies {
    pub(super) fn new(budget: &Budget) -> Self {
        Self(budget.growing_cache(Part::UnreadCounts))
    }
}

/// A count, and what it depends on.
struct Counted {
    basis: BasisVersion,
    /// All events up to here are counted.
    upto: Position,
    tally: Tally,
    /// All receipts up to here are applied to the tally.
    read_upto: Position,
    /// Events through which another event belongs to its thread.
    through: HashSet<EventNid>,
    owed: Owed,
    /// The number of events that a new count would have to read, and that the stored tally does not have.
    unsaved: usize,
    /// Set by a new count until it was stored or found not worth it.
    is_new: bool,
}

/// The work that a look left undone because its [`WorkBudget`] ended. The next look does it and reports changed counts,
/// because the client got others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// Add the new events. The earlier count is still right.
    News,
    /// Count anew. Only the latest events were evaluated, or none.
    All,
}

/// The inputs of a count, besides the events and receipts of the room. If one of them changes, everything is counted
/// anew.
#[derive(Clone)]
pub(super) struct Basis {
    pub(super) rules: Arc<UserRules>,
    pub(super) ignored: Arc<Ignored>,
    pub(super) joined_at: Position,
}

/// The version of a [`Basis`]. Data that was evicted from a cache and read again has the same one. A count keeps only this:
/// the data itself would stay in memory with each count that was made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BasisVersion {
    rules: Position,
    rules_digest: [u8; 32],
    ignored: Position,
    joined_at: Position,
}

impl Basis {
    pub(super) fn version(&self) -> BasisVersion {
        BasisVersion {
            rules: self.rules.version,
            rules_digest: self.rules.digest,
            ignored: self.ignored.version(),
            joined_at: self.joined_at,
        }
    }
}

impl Push {
    /// Forgets all counts and verdicts, so that the next looks count anew.
    #[cfg(test)]
    pub(crate) fn forget_counts(&self) {
        self.tallies.0.iter().for_each(|(key, _)| self.tallies.0.remove(&key));
        self.judged.forget();
    }

    /// The unread events of a room for the user as of `upto`; none if they are not joined. Counts as far as `budget`
    /// reaches.
    pub async fn unread(
        &self,
        (rooms, ephemeral): (&Rooms, &Ephemeral),
        (room, sight): (&Room, &Sight),
        user: &User,
        upto: Position,
        budget: &WorkBudget,
    ) -> Result<Unread, Error> {
        let Some(joined_at) = sight.joined_since(upto) else { return Ok(Unread::default()) };
        let (rules, ignored) = (self.rules(user).await?, self.data.ignored(user).await?);
        let reads = ephemeral.reads(room.nid, user.nid).await?;
        let basis = Basis { rules, ignored, joined_at };
        let version = basis.version();
        let counting = Counting { push: self, rooms, room, user, basis, reads, upto, budget };
        let key = (user.nid, room.nid);
        let entry = self.tallies.0.get_or_default(&key, EMPTY_BYTES);
        entry.is_looked_at.store(true, Ordering::Relaxed);
        let mut held = entry.counted.lock().await;

        let bytes_before = held.as_ref().map(Counted::bytes);
        let known = match held.take() {
            Some(counted) => Some(counted),
            None => counting.stored().await?,
        };
        let read_up_to = |thread: &str| counting.reads.up_to(thread);
        let mut counted = match known {
            Some(mut counted) if counted.basis == version && counted.owed != Owed::All => {
                match counting.go_on(&mut counted).await? {
                    Outcome::Counted => counted,
                    Outcome::CountAnew => {
                        let mut counted = counting.count_anew().await?;
                        counted.tally.changed(upto);
                        counted
                    }
                }
            }
            Some(mut old) => {
                old.tally.read(read_up_to);
                let mut counted = counting.count_anew().await?;
                if !counted.tally.counts_as(&old.tally) {
                    counted.tally.changed(upto);
                }
                counted
            }
            None => counting.count_anew().await?,
        };
        counted.tally.read(read_up_to);
        counted.read_upto = upto;
        if counting.reads.up_to("") >= counted.upto {
            // A new count would find nothing to read.
            counted.unsaved = 0;
        }
        if std::mem::take(&mut counted.is_new) && counted.is_worth_storing() {
            self.stored.note_due(key);
        }
        let unread = counted.tally.unread(upto);
        let bytes = counted.bytes();
        if counted.through.len() <= MAX_THROUGH {
            *held = Some(counted);
        }
        drop(held);
        if bytes_before != Some(bytes) {
            self.tallies.0.has_grown(&key, &entry, bytes);
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
