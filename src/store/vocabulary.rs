//! The vocabulary: Matrix identifiers that have a short id, kept in memory once they have been seen.
//!
//! A new word gets its short id at once; its row travels with the first write that uses it. Until that write has been
//! committed, every further write that uses the word carries the row again, so a failed write leaves no dangling id.
//!
//! Only one process makes words at a time. When another one begins to, the words that are not stored are forgotten, and a
//! write that still has one is refused.
//!
//! Memory is a cache with the database behind it. Users and event types that are stored and that nobody holds can be
//! evicted and read again ([`Database::forget_words`]), and so can [`servers`]; pairs of type and state key, of which a
//! room may have any number, are in [`keys`]. The database holds event types and state keys in their stored form
//! ([`escape`](mod@escape)).

mod escape;
pub(super) mod event_types;
pub mod keys;
mod mark;
pub mod servers;
pub(super) mod users;

use std::sync::{
    Arc, RwLock,
    atomic::{AtomicUsize, Ordering},
};

pub(in crate::store) use self::escape::{escape, unescape};
pub(crate) use self::{escape::Word, mark::Mark, users::UserColumns};
pub use self::{event_types::EventType, users::User};
use self::{event_types::Types, keys::Keys, servers::Servers, users::Users};
use super::{
    Database, KeyNid, Position, ServerNid, TypeNid, UserNid,
    log::{LogEntry, Memory, Touch, WordKind},
};
use crate::memory::budget::{Budget, Part};

/// The memory of a user, a server or an event type, in two maps. Those that somebody holds stay, however many there are.
const WORD_BYTES: usize = 300;

/// The number of users, of servers and of event types before they have their share of the memory budget, and in tools
/// without a budget: 2 MB each.
const FIRST_WORDS: usize = 7_000;

/// All words that this process has met.
#[derive(Debug)]
pub struct Vocabulary {
    users: Arc<RwLock<Users>>,
    servers: Servers,
    types: Arc<RwLock<Types>>,
    keys: Keys,
    /// The number of users, of servers and of event types above which those that nobody holds are evicted.
    kept: AtomicUsize,
}

impl Default for Vocabulary {
    fn default() -> Self {
        let (users, servers, types, keys) = Default::default();
        Self { users, servers, types, keys, kept: AtomicUsize::new(FIRST_WORDS) }
    }
}

impl Memory for Vocabulary {
    /// Notes which words are stored from now on. A word that is not in memory is read when it is looked up.
    fn apply(&self, entry: &LogEntry) {
        for (_, touch) in &entry.touches {
            let Touch::Word { kind, nid } = *touch else { continue };
            match kind {
                WordKind::User => {
                    if let Some(user) = read(&self.users).by_nid.get(&UserNid(nid)) {
                        user.stored.store();
                    }
                }
                WordKind::EventType => {
                    if let Some(known) = write(&self.types).new.remove(&TypeNid(nid)) {
                        known.stored.store();
                    }
                }
                WordKind::Server => self.servers.stored(ServerNid(nid)),
                WordKind::StateKey => self.keys.stored(KeyNid(nid)),
            }
        }
    }

    /// Forgets the words that are not stored. Those that are stored stay as they are for ever.
    fn forget(&self, _: Position) {
        // The servers first: a user who is made after them finds out.
        self.servers.forget_new();
        write(&self.users).forget_new();
        write(&self.types).forget_new();
        self.keys.forget_new();
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Database {
    /// Limits the words in memory to their shares of the budget.
    pub fn limit_words(&self, budget: &Budget) {
        let vocabulary = self.vocabulary();
        vocabulary.keys.limit(budget);
        // A third for each of users, servers and event types, as nobody knows which of them a flood will bring.
        let kept = usize::try_from(budget.share(Part::Words)).unwrap_or(usize::MAX) / WORD_BYTES / 3;
        vocabulary.kept.store(kept, Ordering::Relaxed);
        let (users, types) = (Arc::clone(&vocabulary.users), Arc::clone(&vocabulary.types));
        let servers = vocabulary.servers.clone();
        budget.watch(Part::Words, move || {
            let words = read(&users).by_id.len() + servers.count() + read(&types).by_name.len();
            (words * WORD_BYTES) as u64
        });
    }

    /// Evicts users, servers and event types if there are many; called now and then, so that memory stays bounded.
    pub fn forget_words(&self) {
        let kept = self.vocabulary().kept.load(Ordering::Relaxed);
        // In this order: users hold their servers.
        write(&self.vocabulary().users).forget(kept);
        self.vocabulary().servers.forget(kept);
        write(&self.vocabulary().types).forget(kept);
    }
}

#[cfg(test)]
mod tests;
