//! The receipts of one room, as plain data: their order, and who may see them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, OwnedUserId, UserId};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::{
    account_data::ignored::Ignored,
    store::{Position, UserNid},
};

/// Maximum number of other users' receipts in one answer, the newest ones. Nobody looks at more faces under a timeline.
pub(super) const MAX_SHOWN: usize = 5_000;

/// The size of an event that is kept for other viewers, in bytes: the receipts of some twenty users.
const MAX_RENDERED: usize = 4096;

/// The memory of a receipt in both maps, with its two IDs.
const RECEIPT_BYTES: u64 = 360;

/// The kind of a receipt, which says who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `m.read`: everyone in the room sees it.
    Read = 0,
    /// `m.read.private`: only its owner sees it.
    ReadPrivate = 1,
}

impl Kind {
    /// The number of the kind in the database.
    pub(super) fn code(self) -> i64 {
        self as i64
    }

    pub(super) fn from_code(code: i64) -> Option<Self> {
        [Self::Read, Self::ReadPrivate].into_iter().find(|kind| kind.code() == code)
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "m.read",
            Self::ReadPrivate => "m.read.private",
        }
    }
}

/// The key of a receipt; each has one receipt. An empty `thread` is a receipt without a thread.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub user: UserNid,
    pub kind: Kind,
    pub thread: Arc<str>,
}

#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub user_id: OwnedUserId,
    pub event_id: OwnedEventId,
    pub ts: i64,
    pub pos: Position,
    /// The position of the event in the timeline, if we have it.
    pub event_at: Option<Position>,
}

/// All receipts of one room, by key and by position.
#[derive(Debug, Default)]
pub(super) struct Shown {
    by_key: HashMap<Key, Receipt>,
    by_pos: BTreeSet<(Position, Key)>,
    /// The last event for viewers without own receipts, and its range. A new receipt discards it.
    rendered: Option<(Range, Option<Arc<RawValue>>)>,
}

/// The positions of receipts: after the first one, up to the second.
type Range = (Position, Position);

#[derive(Serialize)]
struct Data<'a> {
    ts: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    thread_id: &'a str,
}

impl Shown {
    /// Adds a receipt, unless a later one is known.
    pub(super) fn apply(&mut self, key: Key, receipt: Receipt) {
        if let Some(old) = self.by_key.get(&key) {
            if old.pos > receipt.pos {
                return;
            }
            self.by_pos.remove(&(old.pos, key.clone()));
        }
        self.rendered = None;
        self.by_pos.insert((receipt.pos, key.clone()));
        self.by_key.insert(key, receipt);
    }

    /// The approximate memory of all receipts, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let rendered =
            self.rendered.as_ref().and_then(|(_, event)| event.as_ref()).map_or(0, |event| event.get().len());
        self.by_key.len() as u64 * RECEIPT_BYTES + rendered as u64
    }

    /// The event that was kept for this range.
    pub(super) fn rendered(&self, range: Range) -> Option<Option<Arc<RawValue>>> {
        self.rendered.as_ref().filter(|(kept, _)| *kept == range).map(|(_, event)| event.clone())
    }

    /// Keeps the event of a range for other viewers, unless it is large.
    pub(super) fn keep_rendered(&mut self, range: Range, event: Option<Arc<RawValue>>) {
        if event.as_ref().is_none_or(|event| event.get().len() <= MAX_RENDERED) {
            self.rendered = Some((range, event));
        }
    }

    /// Returns whether a receipt for an event at `event_at` would not move forwards.
    pub(super) fn is_ahead(&self, key: &Key, event_at: Position) -> bool {
        self.by_key.get(key).and_then(|receipt| receipt.event_at).is_some_and(|known| known >= event_at)
    }

    /// The later of the user's public and private receipts in the thread.
    pub(super) fn read_up_to(&self, user: UserNid, thread: &str) -> Option<Position> {
        let thread: Arc<str> = thread.into();
        [Kind::Read, Kind::ReadPrivate]
            .into_iter()
            .filter_map(|kind| self.by_key.get(&Key { user, kind, thread: Arc::clone(&thread) })?.event_at)
            .max()
    }

    /// Returns whether the user has a receipt in (`since`, `upto`].
    pub(super) fn has_read_since(&self, user: UserNid, since: Position, upto: Position) -> bool {
        let newest_first = self.by_pos.iter().rev().take_while(|(pos, _)| *pos > since);
        newest_first.into_iter().any(|(pos, key)| *pos <= upto && key.user == user)
    }

    /// The content of `m.receipt` for `viewer`: the receipts in (`since`, `upto`], without those of ignored users.
    /// `None` if there are none.
    pub(super) fn content(
        &self,
        viewer: UserNid,
        ignored: &Ignored,
        (since, upto): (Position, Position),
    ) -> Option<Value> {
        let mut events: BTreeMap<&EventId, BTreeMap<&str, BTreeMap<&UserId, Data<'_>>>> = BTreeMap::new();
        let mut of_others = 0;
        for (pos, key) in self.by_pos.iter().rev() {
            if *pos <= since {
                break;
            }
            let own = key.user == viewer;
            if *pos > upto || (key.kind == Kind::ReadPrivate && !own) || (!own && of_others >= MAX_SHOWN) {
                continue;
            }
            let Some(receipt) = self.by_key.get(key).filter(|receipt| !ignored.contains(&receipt.user_id)) else {
                continue;
            };
            of_others += usize::from(!own);
            let users = events.entry(&receipt.event_id).or_default().entry(key.kind.as_str()).or_default();
            // The format holds one receipt of a user for each event. The one without a thread says the most.
            if users.get(&*receipt.user_id).is_none_or(|shown| rank(&key.thread) < rank(shown.thread_id)) {
                users.insert(&receipt.user_id, Data { ts: receipt.ts, thread_id: &key.thread });
            }
        }
        if events.is_empty() {
            return None;
        }
        Some(serde_json::to_value(&events).expect("maps with string keys can be written"))
    }
}

fn rank(thread: &str) -> u8 {
    match thread {
        "" => 0,
        "main" => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;
    use serde_json::json;

    use super::*;

    const ALICE: UserNid = UserNid(1);
    const BOB: UserNid = UserNid(2);

    fn key(user: UserNid, kind: Kind, thread: &str) -> Key {
        Key { user, kind, thread: thread.into() }
    }

    /// A receipt at `pos` for the event at `event_at`.
    fn receipt(user: UserNid, pos: i64, event_at: i64) -> Receipt {
        Receipt {
            user_id: if user == ALICE { user_id!("@alice:x").to_owned() } else { user_id!("@bob:x").to_owned() },
            event_id: EventId::parse(format!("${event_at}")).unwrap(),
            ts: pos * 10,
            pos: Position(pos),
            event_at: Some(Position(event_at)),
        }
    }

    fn shown(receipts: &[(Key, Receipt)]) -> Shown {
        let mut shown = Shown::default();
        for (key, receipt) in receipts {
            shown.apply(key.clone(), receipt.clone());
        }
        shown
    }

    #[test]
    fn receipts_only_move_forwards() {
        let room = shown(&[(key(ALICE, Kind::Read, ""), receipt(ALICE, 10, 5))]);
        let check = |key: Key, event_at, ahead| assert_eq!(room.is_ahead(&key, Position(event_at)), ahead, "{key:?}");
        check(key(ALICE, Kind::Read, ""), 4, true);
        check(key(ALICE, Kind::Read, ""), 5, true);
        check(key(ALICE, Kind::Read, ""), 6, false);
        // Kinds, threads and users are independent of each other.
        check(key(ALICE, Kind::ReadPrivate, ""), 4, false);
        check(key(ALICE, Kind::Read, "main"), 4, false);
        check(key(BOB, Kind::Read, ""), 4, false);
    }

    #[test]
    fn an_older_row_does_not_replace_a_newer_one() {
        let alice = key(ALICE, Kind::Read, "");
        let room = shown(&[(alice.clone(), receipt(ALICE, 10, 5)), (alice, receipt(ALICE, 9, 3))]);
        let content = room.content(BOB, &Ignored::default(), (Position(0), Position(20))).unwrap();
        assert_eq!(content, json!({ "$5": { "m.read": { "@alice:x": { "ts": 100 } } } }));
    }

    #[test]
    fn only_the_owner_sees_a_private_receipt() {
        let room = shown(&[
            (key(ALICE, Kind::ReadPrivate, ""), receipt(ALICE, 10, 5)),
            (key(BOB, Kind::Read, "main"), receipt(BOB, 11, 5)),
        ]);
        let bob = json!({ "@bob:x": { "ts": 110, "thread_id": "main" } });
        assert_eq!(
            room.content(BOB, &Ignored::default(), (Position(0), Position(20))).unwrap(),
            json!({ "$5": { "m.read": bob } })
        );
        let alice = json!({ "@alice:x": { "ts": 100 } });
        assert_eq!(
            room.content(ALICE, &Ignored::default(), (Position(0), Position(20))).unwrap(),
            json!({ "$5": { "m.read": bob, "m.read.private": alice } })
        );
        assert_eq!(room.content(BOB, &Ignored::default(), (Position(11), Position(20))), None);
        assert_eq!(
            room.content(ALICE, &Ignored::default(), (Position(0), Position(10))).unwrap(),
            json!({ "$5": { "m.read.private": alice } })
        );
    }

    #[test]
    fn of_two_receipts_on_one_event_the_one_without_a_thread_is_shown() {
        for order in [["", "main", "$root"], ["$root", "main", ""], ["main", "", "$root"]] {
            let receipts: Vec<_> = (0..)
                .zip(order)
                .map(|(index, thread)| (key(ALICE, Kind::Read, thread), receipt(ALICE, 10 + index, 5)))
                .collect();
            let content = shown(&receipts).content(BOB, &Ignored::default(), (Position(0), Position(20))).unwrap();
            assert_eq!(content["$5"]["m.read"]["@alice:x"].get("thread_id"), None, "{order:?}");
        }
    }

    #[test]
    fn the_later_of_both_kinds_says_how_far_a_user_has_read() {
        let room = shown(&[
            (key(ALICE, Kind::Read, ""), receipt(ALICE, 11, 5)),
            (key(ALICE, Kind::ReadPrivate, ""), receipt(ALICE, 10, 7)),
        ]);
        assert_eq!(room.read_up_to(ALICE, ""), Some(Position(7)));
        assert_eq!(room.read_up_to(ALICE, "main"), None);
        assert_eq!(room.read_up_to(BOB, ""), None);
    }
}
