//! A tally compared with a naive count of everything that happened.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// An event in a room's history, in the order of positions.
#[derive(Debug, Clone)]
enum Step {
    Notified {
        thread: Option<u8>,
        highlight: bool,
    },
    Sent {
        thread: Option<u8>,
    },
    /// The event of an earlier step is redacted.
    Redacted {
        index: prop::sample::Index,
    },
    /// The user reads up to an earlier step: everything, the main timeline, or a thread.
    Read {
        index: prop::sample::Index,
        what: What,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Everything,
    Main,
    Thread(u8),
}

impl What {
    fn name(self) -> String {
        match self {
            Self::Everything => String::new(),
            Self::Main => "main".to_owned(),
            Self::Thread(number) => format!("${number}"),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let thread = || prop::option::of(0..3_u8);
    let what = prop_oneof![Just(What::Everything), Just(What::Main), (0..3_u8).prop_map(What::Thread)];
    let step = prop_oneof![
        6 => (thread(), any::<bool>()).prop_map(|(thread, highlight)| Step::Notified { thread, highlight }),
        1 => thread().prop_map(|thread| Step::Sent { thread }),
        1 => any::<prop::sample::Index>().prop_map(|index| Step::Redacted { index }),
        2 => (any::<prop::sample::Index>(), what).prop_map(|(index, what)| Step::Read { index, what }),
    ];
    prop::collection::vec(step, 1..60)
}

fn named(thread: Option<u8>) -> Thread {
    thread.map(|number| format!("${number}").into())
}

fn pos(index: usize) -> Position {
    Position(index as i64 + 1)
}

/// The furthest receipt of a kind among the steps.
fn read_up_to(steps: &[Step], thread: &str) -> Position {
    let reads = steps.iter().enumerate().filter_map(|(at, step)| match step {
        Step::Read { index, what } if what.name() == thread => Some(pos(index.index(at + 1))),
        _ => None,
    });
    reads.max().unwrap_or(Position::BEFORE_ALL)
}

/// Counts every notification that is not redacted, not read, and not followed by an event of the user in its thread.
fn naive(steps: &[Step]) -> (Counts, BTreeMap<Arc<str>, Counts>) {
    let (mut main, mut threads) = (Counts::default(), BTreeMap::<Arc<str>, Counts>::new());
    for (at, step) in steps.iter().enumerate() {
        let Step::Notified { thread, highlight } = step else { continue };
        let later = || steps.iter().enumerate().skip(at + 1);
        let redacted = later().any(|(by, step)| matches!(step, Step::Redacted { index } if index.index(by + 1) == at));
        let answered = later().any(|(_, step)| matches!(step, Step::Sent { thread: other } if other == thread));
        let name = thread.map_or_else(|| "main".to_owned(), |number| format!("${number}"));
        let read = pos(at) <= read_up_to(steps, "") || pos(at) <= read_up_to(steps, &name);
        if redacted || answered || read {
            continue;
        }
        match named(*thread) {
            None => main.add(*highlight),
            Some(thread) => threads.entry(thread).or_default().add(*highlight),
        }
    }
    (main, threads)
}

proptest! {
    /// Also if it is stored and loaded in between.
    #[test]
    fn a_tally_counts_what_a_naive_count_counts(steps in steps(), look_every in 1..7_usize, store_every in 1..9_usize) {
        let mut tally = Tally::default();
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Notified { thread, highlight } => {
                    tally.notified(pos(at), EventNid(pos(at).0), named(*thread), *highlight);
                }
                Step::Sent { thread } => tally.sent(pos(at), &named(*thread)),
                Step::Redacted { index } => tally.redacted(pos(at), EventNid(pos(index.index(at + 1)).0)),
                Step::Read { .. } => {}
            }
            if at % store_every == 0 {
                let through: HashSet<EventNid> = (0..at % 4).map(|nid| EventNid(7 * nid as i64 - 3)).collect();
                let blob = tally.encode(&through);
                let (loaded, loaded_through) = Tally::decode(&blob).expect("it was encoded");
                prop_assert_eq!((loaded_through, loaded.changed_at), (through, tally.changed_at));
                tally = loaded;
            }
            if at % look_every == 0 || at + 1 == steps.len() {
                let so_far = &steps[..=at];
                tally.read(|thread| read_up_to(so_far, thread));
                let unread = tally.unread(pos(at));
                prop_assert_eq!((unread.main, unread.threads), naive(so_far));
            }
        }
    }
}

proptest! {
    #[test]
    fn damaged_bytes_are_an_error_or_another_tally_of_their_own(
        steps in steps(), at in any::<prop::sample::Index>(), byte: u8, rest in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut tally = Tally::default();
        for (at, step) in steps.iter().enumerate() {
            if let Step::Notified { thread, highlight } = step {
                tally.notified(pos(at), EventNid(pos(at).0), named(*thread), *highlight);
            }
        }
        let mut blob = tally.encode(&HashSet::new());
        let at = at.index(blob.len());
        prop_assert!(Tally::decode(&blob[..at]).is_err(), "its end is missing");
        blob[at] = byte;
        let _ = Tally::decode(&blob);
        let _ = Tally::decode(&rest);
    }
}

#[test]
fn a_tally_takes_a_few_bytes_for_an_event() {
    let mut tally = Tally::default();
    for at in 0..100 {
        tally.notified(Position(5_000_000 + 30 * at), EventNid(9_000_000 + 25 * at), None, at % 10 == 0);
    }
    let bytes = tally.encode(&HashSet::new()).len();
    assert!(bytes < 320, "{bytes}");
}

#[test]
fn a_look_back_does_not_count_what_came_later() {
    let mut tally = Tally::default();
    for at in 0..5 {
        tally.notified(pos(at), EventNid(pos(at).0), None, at == 0);
    }
    assert_eq!(tally.unread(pos(2)).main, Counts { notifications: 3, highlights: 1 });
    assert_eq!(tally.unread(pos(4)).total(), Counts { notifications: 5, highlights: 1 });
}

#[test]
fn no_more_than_so_many_are_counted() {
    let mut tally = Tally::default();
    for at in 0..MAX_EVENTS + 5 {
        tally.notified(pos(at), EventNid(pos(at).0), None, false);
    }
    assert_eq!(tally.unread(pos(MAX_EVENTS + 5)).main.notifications, MAX_EVENTS as u64);
}
