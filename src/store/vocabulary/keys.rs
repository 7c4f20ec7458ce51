//! Pairs of event type and state key. A room may have any number of them, so memory holds a bounded part: the cache
//! evicts by bytes, and the database knows the others.
//!
//! A pair that is not stored yet stays while somebody can still store it. Otherwise another lookup would give it a second
//! short id. What a room's state has, and what it surely lacks, is the room's own knowledge (`room::absent_keys`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, Weighter, sync::Cache};

use super::Mark;
use crate::{
    memory::budget::{Budget, Part},
    store::{
        Database, Error, KeyNid, Write,
        ids::lock,
        log::{Touch, WordKind},
        on,
        rows::{Text, inserts},
        statements,
    },
};

statements! {
    FIND_KEY = "SELECT key_nid FROM state_key WHERE type = $1 AND state_key = $2";
    FIND_KEYS_32 = "SELECT key_nid, state_key FROM state_key WHERE type = $1 AND state_key IN \
        ($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
        $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)";
}

inserts! {
    STATE_KEY: StateKeyColumns = "state_key" (
        key_nid: KeyNid, r#type: Text, state_key: Text
    ) key 1 Keep, followed by Word;
}

/// The size of the cache in bytes before it has its share of the memory budget, and in tools without a budget: about
/// 25,000 members of rooms.
const FIRST_BYTES: u64 = 8 << 20;

/// The approximate number of pairs that fit into the cache, from which it sizes its tables.
const CACHE_KEYS: usize = 32_768;

/// The memory that a pair takes besides its two texts: the pair, its flag, and its place in the cache.
const BYTES_PER_KEY: usize = 240;

/// A pair of event type and state key, with its short id.
#[derive(Debug)]
pub struct StateKey {
    pub nid: KeyNid,
    pub event_type: Arc<str>,
    pub state_key: Arc<str>,
    stored: Arc<Mark>,
}

impl StateKey {
    /// Adds the row to `write`, unless it is known to be stored.
    pub fn write_if_new(&self, write: &mut Write) {
        if !self.stored.is_stored() {
            let row = StateKeyColumns {
                key_nid: self.nid,
                r#type: Arc::clone(&self.event_type),
                state_key: Arc::clone(&self.state_key),
            }
            .row();
            write.add_word(row, Touch::Word { kind: WordKind::StateKey, nid: self.nid.0 }, Arc::clone(&self.stored));
        }
    }
}

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
pub(super) struct Keys {
    cache: Arc<Cache<Words, Arc<StateKey>, ByBytes, DefaultHashBuilder, KeepUnstored>>,
    new: Mutex<New>,
}

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
        Self { cache, new: Mutex::default() }
    }

    /// Limits the pairs in memory to their share of the budget.
    pub(super) fn limit(&self, budget: &Budget) {
        let cache = Arc::clone(&self.cache);
        cache.set_capacity(budget.share(Part::StateKeys));
        budget.watch(Part::StateKeys, move || cache.weight());
    }

    fn get(&self, event_type: &str, state_key: &str) -> Option<Arc<StateKey>> {
        self.cache.get(&BorrowedWords(event_type, state_key)).filter(|key| !key.stored.is_void())
    }

    /// Forgets the pairs that are not stored yet.
    pub(super) fn forget_new(&self) {
        for (_, mark) in lock(&self.new).marks.drain() {
            if let Some(mark) = mark.upgrade() {
                mark.give_up();
            }
        }
        self.cache.retain(|_, key| key.stored.is_stored());
    }

    /// Notes that a pair is stored from now on, if it was made here.
    pub(super) fn stored(&self, nid: KeyNid) {
        if let Some(mark) = lock(&self.new).marks.remove(&nid).and_then(|mark| mark.upgrade()) {
            mark.store();
        }
    }

    /// The pair in memory, or the one that `read` finds, or else a new one with the short id of `make`. Only one `read` runs
    /// for a pair at a time, so two that make one cannot make two.
    async fn get_or_read<E>(
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

impl Database {
    /// The pair of event type and state key, with a new short id if there was none.
    pub async fn state_key(&self, event_type: &str, state_key: &str) -> Result<Arc<StateKey>, Error> {
        let keys = &self.vocabulary().keys;
        if let Some(known) = keys.get(event_type, state_key) {
            return Ok(known);
        }
        let ids = self.committer().ids();
        let openings = ids.openings();
        let read = self.read_state_key(event_type, state_key);
        let make = || {
            ids.ensure_since(openings)?;
            ids.key()
        };
        keys.get_or_read(event_type, state_key, read, make).await
    }

    /// The pair, if it is in memory.
    pub(crate) fn state_key_in_memory(&self, event_type: &str, state_key: &str) -> Option<Arc<StateKey>> {
        self.vocabulary().keys.get(event_type, state_key)
    }

    /// The pair, if a room's state has ever had it.
    pub(crate) async fn find_state_key(
        &self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<StateKey>>, Error> {
        let keys = &self.vocabulary().keys;
        if let Some(known) = keys.get(event_type, state_key) {
            return Ok(Some(known));
        }
        // `None` stands for a pair that does not exist.
        let read = async { self.read_state_key(event_type, state_key).await.map_err(Some) };
        match keys.get_or_read(event_type, state_key, read, || Err(None::<Error>)).await {
            Ok(known) => Ok(Some(known)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// The pairs of this type with these state keys, in no particular order; those that no room has ever had are
    /// missing.
    pub(crate) async fn find_state_keys<'k>(
        &self,
        event_type: &str,
        state_keys: impl IntoIterator<Item = &'k str>,
    ) -> Result<Vec<KeyNid>, Error> {
        let keys = &self.vocabulary().keys;
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for state_key in state_keys {
            match keys.get(event_type, state_key) {
                Some(known) => found.push(known.nid),
                None => missing.push(state_key),
            }
        }
        for chunk in missing.chunks(32) {
            for (state_key, nid) in self.read_state_keys(event_type, chunk).await? {
                let read = std::future::ready(Ok::<_, Error>(Some(nid)));
                keys.get_or_read(event_type, &state_key, read, || Ok(nid)).await?;
                found.push(nid);
            }
        }
        Ok(found)
    }

    async fn read_state_key(&self, event_type: &str, state_key: &str) -> Result<Option<KeyNid>, Error> {
        // No stored text holds a NUL, and PostgreSQL would not even compare one.
        if event_type.contains('\0') || state_key.contains('\0') {
            return Ok(None);
        }
        let mut reader = self.read().await?;
        let row: Option<(i64,)> = on!(&mut reader.conn(), db =>
            sqlx::query_as(FIND_KEY.text()).bind(event_type).bind(state_key).fetch_optional(&mut **db).await)?;
        Ok(row.map(|(nid,)| KeyNid(nid)))
    }

    /// At most 32 pairs, by their state key.
    async fn read_state_keys(&self, event_type: &str, wanted: &[&str]) -> Result<HashMap<String, KeyNid>, Error> {
        let mut reader = self.read().await?;
        let rows: Vec<(i64, String)> = on!(&mut reader.conn(), db => {
            let mut query = sqlx::query_as(FIND_KEYS_32.text()).bind(event_type);
            for index in 0..32 {
                // The first one again finds nothing more.
                query = query.bind(wanted.get(index).or(wanted.first()).copied().unwrap_or_default());
            }
            query.fetch_all(&mut **db).await
        })?;
        Ok(rows.into_iter().map(|(nid, state_key)| (state_key, KeyNid(nid))).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    const BYTES: u64 = 64 << 10;

    async fn add(keys: &Keys, nid: i64, stored: bool) -> Arc<StateKey> {
        let row = std::future::ready(Ok::<_, Error>(stored.then_some(KeyNid(nid))));
        keys.get_or_read("flood", &nid.to_string(), row, || Ok(KeyNid(nid))).await.expect("no database is asked")
    }

    fn is_there(keys: &Keys, nid: i64) -> bool {
        keys.cache.peek(&BorrowedWords("flood", &nid.to_string())).is_some_and(|key| key.nid == KeyNid(nid))
    }

    #[tokio::test]
    async fn a_flood_of_pairs_does_not_grow_memory() {
        let keys = Keys::with_capacity(256, BYTES);
        for nid in 0..20_000 {
            add(&keys, nid, nid % 2 == 0).await;
            assert!(keys.cache.weight() <= keys.cache.capacity(), "{} bytes after {nid} pairs", keys.cache.weight());
        }
        assert!(keys.cache.len() > 10, "some stay");
        let marks = lock(&keys.new).marks.len();
        assert!(marks <= 2 * keys.cache.len() + SWEEP_AT_LEAST, "{marks} marks");
    }

    #[tokio::test]
    async fn a_pair_that_is_on_its_way_to_the_disk_keeps_its_short_id() {
        let keys = Keys::with_capacity(256, BYTES);
        let flood = async |nids: std::ops::Range<i64>| {
            for nid in nids {
                add(&keys, nid, true).await;
            }
        };
        flood(1_000..10_000).await;
        // One that somebody holds, and one whose write is queued.
        let held = add(&keys, 1, false).await;
        let mut write = Write::default();
        add(&keys, 2, false).await.write_if_new(&mut write);
        flood(10_000..20_000).await;
        assert!(is_there(&keys, 1) && is_there(&keys, 2));
        // A write that failed takes its pairs along.
        drop((held, write));
        flood(20_000..30_000).await;
        assert!(!is_there(&keys, 1) && !is_there(&keys, 2));
    }

    #[tokio::test]
    async fn two_who_ask_at_once_get_one_short_id() {
        let keys = Keys::default();
        let ask = async |nid: i64| {
            let read = async {
                tokio::task::yield_now().await;
                Ok::<_, Error>(None)
            };
            keys.get_or_read("m.room.name", "", read, || Ok(KeyNid(nid))).await.expect("no database is asked").nid
        };
        assert_eq!(tokio::join!(ask(1), ask(2)), (KeyNid(1), KeyNid(1)));
    }

    #[tokio::test]
    async fn a_pair_that_is_forgotten_before_it_is_stored_gets_another_short_id_and_is_written_no_more() {
        let keys = Keys::default();
        let (stored, new) = (add(&keys, 1, true).await, add(&keys, 2, false).await);
        keys.forget_new();
        assert!(is_there(&keys, 1) && !stored.stored.is_void());
        assert!(!is_there(&keys, 2) && new.stored.is_void(), "whoever holds it may not write it");
        let again =
            keys.get_or_read("flood", "2", std::future::ready(Ok::<_, Error>(Some(KeyNid(7)))), || Ok(KeyNid(0)));
        assert_eq!(again.await.expect("no database is asked").nid, KeyNid(7), "another process has stored it");
        // A late commit of this process does not bring it back.
        keys.stored(KeyNid(2));
        assert!(new.stored.is_void());
    }

    /// Some look for a pair, find nothing and make it, all at once. A waiting one has the pair a moment before the cache has it,
    /// so a look into memory alone may still find nothing then.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn those_who_make_a_pair_at_once_have_the_same() {
        let keys = Arc::new(Keys::default());
        let next = Arc::new(AtomicI64::new(1));
        for round in 0..500 {
            let word = round.to_string();
            let mut all = JoinSet::new();
            for _ in 0..6 {
                let (keys, next, word) = (Arc::clone(&keys), Arc::clone(&next), word.clone());
                all.spawn(async move {
                    let none = || async {
                        tokio::task::yield_now().await;
                        Ok::<_, u8>(None)
                    };
                    // A look that makes nothing leaves its place to the next one.
                    let _ = keys.get_or_read("m", &word, none(), || Err(1)).await;
                    let make = || Ok(KeyNid(next.fetch_add(1, Ordering::Relaxed)));
                    keys.get_or_read("m", &word, none(), make).await.expect("made")
                });
            }
            let all = all.join_all().await;
            let found = keys.get("m", &word).expect("they hold it");
            assert!(all.iter().all(|made| Arc::ptr_eq(made, &found)), "round {round}");
        }
    }
}
