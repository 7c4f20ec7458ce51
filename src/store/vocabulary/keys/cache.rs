//! The pairs of event type and state key in memory: a cache bounded by bytes, in which a pair stays while somebody can still store it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, Weak},
};

use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, Weighter, sync::Cache};

use super::StateKey;
use crate::{
    memory::budget::{Budget, Part},
    store::{KeyNid, ids::lock, vocabulary::Mark},
};

/// The size of the cache in bytes before it has its share of the memory budget, and in tools without a budget: about
/// 25,000 members of rooms.
const FIRST_BYTES: u64 = 8 << 20;

/// The approximate number of pairs that fit into the cache, from which it sizes its tables.
const CACHE_KEYS: usize = 32_768;

/// The memory that a pair takes besides its two texts: the pair, its mark, and its place in the cache.
const BYTES_PER_KEY: usize = 240;

/// Event type and state key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Words(Arc<str>, Arc<str>);

/// Borrowed [`Words`]. Both have the hash of their texts.
#[derive(Hash)]
struct BorrowedWords<'a>(&'a str, &'a str);

impl Equivalent<Words> for BorrowedWords<'_> {
    fn equivalent(&self, words: &Words) -> bool {
        *self.0 == *words.0 && *self.1 == *words.1
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Words, Arc<StateKey>> for ByBytes {
    fn weight(&self, words: &Words, _: &Arc<StateKey>) -> u64 {
        (words.0.len() + words.1.len() + BYTES_PER_KEY) as u64
    }
}

/// Keeps a pair that is not stored while somebody holds it, or a write on its way does.
#[derive(Clone)]
struct KeepUnstored;

impl Lifecycle<Words, Arc<StateKey>> for KeepUnstored {
    type RequestState = ();

    fn is_pinned(&self, _: &Words, key: &Arc<StateKey>) -> bool {
        // The mark is set before the write lets go of it.
        (Arc::strong_count(key) > 1 || Arc::strong_count(&key.stored) > 1) && !key.stored.is_stored()
    }
}

/// The pairs in memory.
#[derive(Debug)]
pub(in crate::store::vocabulary) struct Keys {
    cache: Arc<Cache<Words, Arc<StateKey>, ByBytes, DefaultHashBuilder, KeepUnstored>>,
    new: Mutex<New>,
    absent: Mutex<VecDeque<Absent>>,
}

/// A pair that was looked for and is not stored, and the openings of the short ids before that look.
#[derive(Debug)]
struct Absent {
    words: Words,
    openings: u64,
}

/// The number of absent pairs that are remembered. A write makes a pair soon after somebody has looked for it in vain, so
/// these are the looks of requests in work.
const ABSENT: usize = 64;

/// The marks of pairs that are not stored yet. The pairs and the writes on their way hold them; a mark that nobody holds is
/// of no use.
#[derive(Debug, Default)]
struct New {
    marks: HashMap<KeyNid, Weak<Mark>>,
    /// The number of marks at which those that nobody holds are removed.
    sweep_at: usize,
}

/// The smallest number of marks at which it is worth looking for those that nobody holds: 16 kB of them.
const SWEEP_AT_LEAST: usize = 512;

impl New {
    fn add(&mut self, nid: KeyNid, mark: &Arc<Mark>) {
        if self.marks.len() >= self.sweep_at {
            self.marks.retain(|_, mark| mark.strong_count() > 0);
            self.sweep_at = (2 * self.marks.len()).max(SWEEP_AT_LEAST);
        }
        self.marks.insert(nid, Arc::downgrade(mark));
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::with_capacity(CACHE_KEYS, FIRST_BYTES)
    }
}

impl Keys {
    fn with_capacity(keys: usize, bytes: u64) -> Self {
        let cache = Arc::new(Cache::with(keys, bytes, ByBytes, DefaultHashBuilder::default(), KeepUnstored));
        Self { cache, new: Mutex::default(), absent: Mutex::default() }
    }

    /// Limits the pairs in memory to their share of the budget.
    pub(in crate::store::vocabulary) fn limit(&self, budget: &Budget) {
        let cache = Arc::clone(&self.cache);
        cache.set_capacity(budget.share(Part::StateKeys));
        budget.watch(Part::StateKeys, move || cache.weight());
    }

    pub(super) fn get(&self, event_type: &str, state_key: &str) -> Option<Arc<StateKey>> {
        self.cache.get(&BorrowedWords(event_type, state_key)).filter(|key| !key.stored.is_void())
    }

    /// Forgets the pairs that are not stored yet.
    pub(in crate::store::vocabulary) fn forget_new(&self) {
        for (_, mark) in lock(&self.new).marks.drain() {
            if let Some(mark) = mark.upgrade() {
                mark.give_up();
            }
        }
        self.cache.retain(|_, key| key.stored.is_stored());
    }

    /// Notes that a pair is stored from now on, if it was made here.
    pub(in crate::store::vocabulary) fn stored(&self, nid: KeyNid) {
        if let Some(mark) = lock(&self.new).marks.remove(&nid).and_then(|mark| mark.upgrade()) {
            mark.store();
        }
    }

    /// Notes that the database had no such pair after `openings`. Only a `read` of [`Keys::get_or_read`] may say so, because no
    /// other one makes the pair meanwhile.
    pub(super) fn note_absent(&self, event_type: &str, state_key: &str, openings: u64) {
        let mut absent = lock(&self.absent);
        if absent.len() >= ABSENT {
            absent.pop_front();
        }
        absent.push_back(Absent { words: Words(event_type.into(), state_key.into()), openings });
    }

    /// Returns whether the pair was found absent since these `openings`, so that only this process can have made it, and it
    /// has not.
    pub(super) fn is_absent(&self, event_type: &str, state_key: &str, openings: u64) -> bool {
        let is_it = |absent: &Absent| {
            absent.openings == openings && BorrowedWords(event_type, state_key).equivalent(&absent.words)
        };
        lock(&self.absent).iter().any(is_it)
    }

    /// Forgets that the pair was absent, before it is made.
    pub(super) fn forget_absent(&self, event_type: &str, state_key: &str) {
        lock(&self.absent).retain(|absent| !BorrowedWords(event_type, state_key).equivalent(&absent.words));
    }

    /// The pair in memory, or the one that `read` finds, or else a new one with the short id of `make`. Only one `read` runs
    /// for a pair at a time, so two that make one cannot make two.
    pub(super) async fn get_or_read<E>(
        &self,
        event_type: &str,
        state_key: &str,
        read: impl Future<Output = Result<Option<KeyNid>, E>>,
        make: impl FnOnce() -> Result<KeyNid, E>,
    ) -> Result<Arc<StateKey>, E> {
        let words = Words(event_type.into(), state_key.into());
        let guard = loop {
            match self.cache.get_value_or_guard_async(&words).await {
                Ok(known) if known.stored.is_void() => _ = self.cache.remove_if(&words, |key| key.stored.is_void()),
                Ok(known) => return Ok(known),
                Err(guard) => break guard,
            }
        };
        let found = read.await?;
        let mark = Arc::new(Mark::new(found.is_some()));
        let nid = match found {
            Some(nid) => nid,
            None => {
                // Under the lock: a pair that is made while the new ones are forgotten is among them, or gets no short id.
                let mut new = lock(&self.new);
                let nid = make()?;
                // Before anybody finds the pair and stores it.
                new.add(nid, &mark);
                nid
            }
        };
        let Words(event_type, state_key) = words;
        let key = Arc::new(StateKey { nid, event_type, state_key, stored: mark });
        // Fails only if somebody has put another one there meanwhile, and nobody does.
        let _ = guard.insert(Arc::clone(&key));
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
