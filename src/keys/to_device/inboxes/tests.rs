//! Reads of an inbox while commits go on.

use proptest::prelude::*;

use super::*;

const DEVICE: DeviceNid = DeviceNid(1);

/// The size of every message.
const BYTES: u32 = 10;

fn load(inboxes: &Inboxes) -> Arc<Load> {
    inboxes.find_or_load(DEVICE).expect_err("it is not in memory")
}

/// The numbers of messages at these positions, as read after the commit `seen`.
fn read(messages: &[i64], seen: i64) -> Waiting {
    let count = messages.len() as u64;
    Waiting {
        oldest: messages.iter().min().copied().map(Position),
        newest: messages.iter().max().copied().map(Position),
        messages: count,
        bytes: count * u64::from(BYTES),
        seen: Position(seen),
    }
}

fn numbers(inbox: Inbox) -> (Option<i64>, u64, u64) {
    ((inbox.count > 0).then_some(inbox.newest.0), inbox.count, inbox.bytes)
}

fn found(inboxes: &Inboxes) -> Option<(Option<i64>, u64, u64)> {
    inboxes.find(DEVICE).map(numbers)
}

#[test]
fn requests_for_one_device_share_a_read_also_across_commits() {
    let inboxes = Inboxes::new(&Budget::new(64 << 20));
    let first = load(&inboxes);
    inboxes.added(DEVICE, Position(5), (1, BYTES));
    assert!(Arc::ptr_eq(&first, &load(&inboxes)), "a commit leaves the read as it is");
    assert!(!Arc::ptr_eq(&first, &inboxes.find_or_load(DeviceNid(2)).expect_err("not in memory")));
    inboxes.loaded(DEVICE, &first, Ok(read(&[2, 3], 4))).expect("it was read");
    assert_eq!(found(&inboxes), Some((Some(5), 3, 30)));
}

#[test]
fn a_commit_that_was_seen_by_the_read_counts_once() {
    let inboxes = Inboxes::new(&Budget::new(64 << 20));
    let running = load(&inboxes);
    inboxes.added(DEVICE, Position(5), (1, BYTES));
    inboxes.loaded(DEVICE, &running, Ok(read(&[2, 5, 6], 6))).expect("it was read");
    assert_eq!(found(&inboxes), Some((Some(6), 3, 30)));
    // Memory hears of a commit after the database shows it.
    inboxes.added(DEVICE, Position(6), (1, BYTES));
    assert_eq!(found(&inboxes), Some((Some(6), 3, 30)));
    inboxes.added(DEVICE, Position(7), (1, BYTES));
    inboxes.removed(DEVICE, (Position(8), Position(2)), (1, BYTES));
    assert_eq!(found(&inboxes), Some((Some(7), 3, 30)));
}

#[test]
fn an_inbox_that_is_evicted_while_it_is_read_is_not_cached() {
    let evictions: [fn(&Inboxes); 3] =
        [|inboxes| inboxes.evict(DEVICE), |inboxes| inboxes.removed_elsewhere(DEVICE, Position(1)), Inboxes::evict_all];
    for evict in evictions {
        let inboxes = Inboxes::new(&Budget::new(64 << 20));
        let outdated = load(&inboxes);
        inboxes.added(DEVICE, Position(5), (1, BYTES));
        evict(&inboxes);
        let running = load(&inboxes);
        assert!(!Arc::ptr_eq(&outdated, &running), "whoever comes later reads again");
        inboxes.added(DEVICE, Position(6), (1, BYTES));
        let answer = inboxes.loaded(DEVICE, &outdated, Ok(read(&[2], 4))).expect("it was read");
        assert_eq!(numbers(answer), (Some(5), 2, 20), "those who waited before know of 5");
        assert_eq!(found(&inboxes), None);
        inboxes.loaded(DEVICE, &running, Ok(read(&[2, 5], 5))).expect("it was read");
        assert_eq!(found(&inboxes), Some((Some(6), 3, 30)));
    }
}

#[test]
fn a_read_that_fails_is_tried_again_by_the_next_request() {
    let inboxes = Inboxes::new(&Budget::new(64 << 20));
    let failed = load(&inboxes);
    inboxes.loaded(DEVICE, &failed, Err(Error::damaged("test", "no database"))).expect_err("it failed");
    let next = load(&inboxes);
    assert!(!Arc::ptr_eq(&failed, &next));
    inboxes.loaded(DEVICE, &next, Ok(read(&[2], 4))).expect("it was read");
    assert_eq!(found(&inboxes), Some((Some(2), 1, 10)));
}

#[test]
fn a_read_for_which_nobody_waits_collects_a_bounded_number_of_changes() {
    let inboxes = Inboxes::new(&Budget::new(64 << 20));
    let forgotten = load(&inboxes);
    for at in (1..).take(2 * MAX_CHANGES) {
        inboxes.added(DEVICE, Position(at), (1, BYTES));
    }
    assert_eq!(lock(&forgotten.changes).len(), MAX_CHANGES);
    assert!(!Arc::ptr_eq(&forgotten, &load(&inboxes)));
}

/// A commit for the inbox.
#[derive(Debug, Clone)]
enum Step {
    Send,
    /// Deletes everything up to a number of positions before its own.
    Fetch(i64),
    /// Deletes the oldest message, as a full inbox does.
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![4 => Just(Step::Send), 1 => (1..8_i64).prop_map(Step::Fetch), 1 => Just(Step::Evict)]
}

proptest! {
    /// Each commit has the position of its number. The read is asked for after some of them, sees more of them, and ends
    /// after any of the later ones.
    #[test]
    fn an_inbox_that_was_read_among_commits_is_like_one_that_is_read_after_them(
        steps in prop::collection::vec(step(), 1..40),
        (start, seen, end) in (0..1_000_usize, 0..1_000_usize, 0..1_000_usize),
    ) {
        let mut messages: Vec<i64> = Vec::new();
        let mut reads = vec![read(&[], 0)];
        let mut changes = Vec::new();
        for (at, step) in (1..).zip(steps) {
            let before = messages.len();
            let upto = match step {
                Step::Send => {
                    messages.push(at);
                    None
                }
                Step::Fetch(back) => {
                    messages.retain(|message| *message > at - back);
                    Some(Position((at - back).max(0)))
                }
                Step::Evict => {
                    messages.drain(..before.min(1));
                    Some(Position::BEFORE_ALL)
                }
            };
            let removed = u32::try_from(before.saturating_sub(messages.len())).expect("few");
            changes.push((Position(at), upto, removed));
            reads.push(read(&messages, at));
        }
        let (start, len) = (start % reads.len(), reads.len());
        let (seen, end) = (start + seen % (len - start), start + end % (len - start));
        let inboxes = Inboxes::new(&Budget::new(64 << 20));
        let apply = |range: std::ops::Range<usize>| {
            for (at, upto, removed) in &changes[range] {
                match upto {
                    Some(upto) => inboxes.removed(DEVICE, (*at, *upto), (*removed, *removed * BYTES)),
                    None => inboxes.added(DEVICE, *at, (1, BYTES)),
                }
            }
        };
        apply(0..start);
        let running = load(&inboxes);
        apply(start..end);
        inboxes.loaded(DEVICE, &running, Ok(reads[seen])).expect("it was read");
        apply(end..changes.len());
        let found = inboxes.find(DEVICE).expect("it is cached");
        let expected = Inbox::new(reads[len - 1]);
        prop_assert_eq!((found.count, found.bytes), (expected.count, expected.bytes));
        prop_assert!(found.newest >= expected.newest && found.oldest <= expected.oldest, "{:?}, {:?}", found, expected);
    }
}
