//! Floods of pairs, and pairs that several tasks make at once.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::store::{Error, Write};

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
    let again = keys.get_or_read("flood", "2", std::future::ready(Ok::<_, Error>(Some(KeyNid(7)))), || Ok(KeyNid(0)));
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

#[test]
fn few_absent_pairs_are_remembered_until_they_are_made_or_the_short_ids_open_again() {
    let keys = Keys::default();
    for number in 0..=ABSENT {
        keys.note_absent("m.example", &number.to_string(), 1);
    }
    let absent = |number: usize, openings| keys.is_absent("m.example", &number.to_string(), openings);
    assert!(!absent(0, 1), "the oldest has made room");
    assert!(absent(1, 1) && absent(ABSENT, 1));
    assert!(!absent(ABSENT, 2), "another process may have made it");
    assert!(!keys.is_absent("m.other", "1", 1));
    keys.forget_absent("m.example", "1");
    assert!(!absent(1, 1) && absent(2, 1));
}
