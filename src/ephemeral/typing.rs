//! Typing: which users type in which room ([spec]). In memory only: after a restart nobody types, and clients that were
//! told of typing users are told that it has ended. Their tokens name the rooms ([`Hints`](crate::sync::token::Hints)).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#typing-notifications

use std::{collections::HashMap, sync::Mutex, time::Duration};

use ruma::{OwnedUserId, UserId};
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use super::Ephemeral;
use crate::{
    account_data::ignored::Ignored,
    bus::Bus,
    clock::Clock,
    store::{RoomNid, UserNid, ids::lock, vocabulary::User},
};

/// The longest time for which a client may say that its user is typing. Clients repeat it every few seconds.
pub const MAX_TYPING: Duration = Duration::from_secs(120);

/// The time for a client that gives none.
pub const DEFAULT_TYPING: Duration = Duration::from_secs(30);

/// Maximum number of users shown as typing in one room. Nobody can read a longer list, and each change of it goes to
/// the whole room.
pub const MAX_TYPISTS: usize = 50;

/// The time for which a room is kept after the last user has stopped: longer than any client waits before it syncs
/// again.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Typing in all rooms.
#[derive(Default)]
pub(super) struct Typing {
    rooms: HashMap<RoomNid, TypingRoom>,
    /// The number of the latest change in any room.
    latest: u64,
}

struct TypingRoom {
    changed: u64,
    changed_at: i64,
    typists: Vec<Typist>,
}

struct Typist {
    user: UserNid,
    user_id: OwnedUserId,
    until: i64,
}

/// A change of typing in a room, for one viewer.
pub struct TypingNews {
    /// The `m.typing` event.
    pub event: Box<RawValue>,
    /// Whether it names any user.
    pub anybody: bool,
}

impl Typing {
    /// Sets the time until which the user types. Returns the number of the change if others can see it.
    fn set(
        &mut self,
        room: RoomNid,
        user: (UserNid, &UserId),
        until: Option<i64>,
        now: i64,
        number: impl FnOnce(RoomNid) -> u64,
    ) -> Option<u64> {
        let (user, user_id) = user;
        let Some(until) = until else { return self.end(room, user, now, number) };
        let typing =
            self.rooms.entry(room).or_insert_with(|| TypingRoom { changed: 0, changed_at: now, typists: Vec::new() });
        if let Some(typist) = typing.typists.iter_mut().find(|typist| typist.user == user) {
            typist.until = until;
            return None;
        }
        if typing.typists.len() >= MAX_TYPISTS {
            return None;
        }
        typing.typists.push(Typist { user, user_id: user_id.to_owned(), until });
        Some(self.change(room, now, number))
    }

    /// Ends the user's typing.
    fn end(&mut self, room: RoomNid, user: UserNid, now: i64, number: impl FnOnce(RoomNid) -> u64) -> Option<u64> {
        let typing = self.rooms.get_mut(&room)?;
        let index = typing.typists.iter().position(|typist| typist.user == user)?;
        typing.typists.remove(index);
        Some(self.change(room, now, number))
    }

    /// Records a change. Takes the number under the lock, so that a reader who reads a number before the room sees
    /// every change up to it.
    fn change(&mut self, room: RoomNid, now: i64, number: impl FnOnce(RoomNid) -> u64) -> u64 {
        let number = number(room);
        self.latest = number;
        if let Some(typing) = self.rooms.get_mut(&room) {
            typing.changed = number;
            typing.changed_at = now;
        }
        number
    }

    /// Ends expired typing. Returns the changed rooms.
    pub(super) fn expire(&mut self, now: i64, mut number: impl FnMut(RoomNid) -> u64) -> Vec<(RoomNid, u64)> {
        let mut ended = Vec::new();
        for (room, typing) in &mut self.rooms {
            let before = typing.typists.len();
            typing.typists.retain(|typist| typist.until > now);
            if typing.typists.len() != before {
                ended.push(*room);
            }
        }
        let remembered = i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
        let ended = ended.into_iter().map(|room| (room, self.change(room, now, &mut number))).collect();
        self.rooms.retain(|_, typing| !typing.typists.is_empty() || now - typing.changed_at < remembered);
        ended
    }

    /// The time when the next user stops typing.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.rooms.values().flat_map(|typing| &typing.typists).map(|typist| typist.until).min()
    }

    /// Returns whether the room is in memory: somebody types there, or did a moment ago.
    fn remembers(&self, room: RoomNid) -> bool {
        self.rooms.contains_key(&room)
    }

    /// The rooms in which the list of typing users changed after `since`.
    fn rooms_since(&self, since: u64) -> Vec<RoomNid> {
        self.rooms.iter().filter(|(_, typing)| typing.changed > since).map(|(room, _)| *room).collect()
    }

    fn since(&self, room: RoomNid, since: u64) -> Option<impl Iterator<Item = &UserId>> {
        if self.latest <= since {
            return None;
        }
        let typing = self.rooms.get(&room).filter(|typing| typing.changed > since)?;
        Some(typing.typists.iter().map(|typist| &*typist.user_id))
    }
}

/// Ends the typing of a user who has left the room.
pub(super) fn end(typing: &Mutex<Typing>, bus: &Bus, clock: &Clock, user: UserNid, room: RoomNid) {
    let changed = lock(typing).end(room, user, clock.now_ms(), |room| bus.next_ephemeral_in(room));
    if let Some(number) = changed {
        bus.wake_room_ephemeral(room, number);
    }
}

impl Ephemeral {
    /// Starts typing of the user in the room for this time, or ends it. The caller must check that the user is joined.
    pub fn set_typing(&self, room: RoomNid, user: &User, typing_for: Option<Duration>) {
        let now = self.clock.now_ms();
        let until = typing_for.map(|time| now + i64::try_from(time.min(MAX_TYPING).as_millis()).unwrap_or(0));
        let number = |room| self.bus.next_ephemeral_in(room);
        let changed = lock(&self.typing).set(room, (user.nid, &user.user_id), until, now, number);
        if let Some(number) = changed {
            self.bus.wake_room_ephemeral(room, number);
        }
        self.sooner.notify_one();
    }

    /// The rooms in memory in which the list of typing users changed after `since`, for a look whose user's set of rooms
    /// does not reach back that far.
    pub fn typing_rooms_since(&self, since: u64) -> Vec<RoomNid> {
        lock(&self.typing).rooms_since(self.known(since))
    }

    /// The room's `m.typing` event, if it changed after `since`; 0 is before everything. Omits users whom the viewer
    /// ignores. A viewer who `was_told` of typing users gets an empty list when the room is no longer in memory: after
    /// a restart, or after a long absence.
    pub fn typing_since(&self, room: RoomNid, (since, was_told): (u64, bool), ignored: &Ignored) -> Option<TypingNews> {
        let since = self.known(since);
        let user_ids: Vec<OwnedUserId> = {
            let typing = lock(&self.typing);
            match typing.since(room, since) {
                Some(shown) => shown.filter(|user_id| !ignored.contains(user_id)).map(ToOwned::to_owned).collect(),
                None if was_told && !typing.remembers(room) => Vec::new(),
                None => return None,
            }
        };
        let event = json!({ "type": "m.typing", "content": { "user_ids": user_ids } });
        let event = to_raw_value(&event).expect("an object of strings can be written");
        Some(TypingNews { event, anybody: !user_ids.is_empty() })
    }
}

#[cfg(test)]
mod tests {
    use ruma::user_id;

    use super::*;

    const ROOM: RoomNid = RoomNid(1);

    struct Numbered {
        typing: Typing,
        last: u64,
    }

    impl Numbered {
        fn set(&mut self, user: i64, until: Option<i64>, now: i64) -> Option<u64> {
            let id = if user == 1 { user_id!("@alice:example.org") } else { user_id!("@bob:example.org") };
            let last = &mut self.last;
            self.typing.set(ROOM, (UserNid(user), id), until, now, |_| {
                *last += 1;
                *last
            })
        }

        fn expire(&mut self, now: i64) -> Vec<(RoomNid, u64)> {
            let last = &mut self.last;
            self.typing.expire(now, |_| {
                *last += 1;
                *last
            })
        }

        fn shown(&self, since: u64) -> Option<Vec<String>> {
            self.typing.since(ROOM, since).map(|users| users.map(|user| user.localpart().to_owned()).collect())
        }
    }

    fn nobody() -> Numbered {
        Numbered { typing: Typing::default(), last: 0 }
    }

    #[test]
    fn only_a_change_of_the_list_is_news() {
        let mut room = nobody();
        assert_eq!(room.shown(0), None);
        assert_eq!(room.set(1, None, 0), None, "who does not type cannot stop");
        assert_eq!(room.set(1, Some(1_000), 0), Some(1));
        assert_eq!(room.set(1, Some(2_000), 500), None, "typing on changes nothing for the others");
        assert_eq!(room.set(2, Some(3_000), 500), Some(2));
        assert_eq!(room.shown(0).unwrap(), ["alice", "bob"]);
        assert_eq!(room.shown(1).unwrap(), ["alice", "bob"]);
        assert_eq!(room.shown(2), None);
        assert_eq!(room.set(1, None, 600), Some(3));
        assert_eq!(room.shown(2).unwrap(), ["bob"]);
        assert_eq!((room.typing.rooms_since(2), room.typing.rooms_since(3)), (vec![ROOM], vec![]));
    }

    #[test]
    fn typing_ends_by_itself() {
        let mut room = nobody();
        room.set(1, Some(1_000), 0);
        room.set(2, Some(3_000), 0);
        assert_eq!(room.typing.next_due(), Some(1_000));
        assert_eq!(room.expire(999), []);
        assert_eq!(room.expire(1_000), [(ROOM, 3)]);
        assert_eq!(room.shown(2).unwrap(), ["bob"]);
        assert_eq!(room.typing.next_due(), Some(3_000));
        assert_eq!(room.expire(5_000), [(ROOM, 4)]);
        assert_eq!(room.shown(3).unwrap(), Vec::<String>::new());
        assert_eq!(room.typing.next_due(), None);
    }

    #[test]
    fn a_quiet_room_is_forgotten() {
        let mut room = nobody();
        room.set(1, Some(1_000), 0);
        room.expire(1_000);
        assert_eq!(room.typing.rooms.len(), 1);
        room.expire(1_000 + 600_000);
        assert_eq!(room.typing.rooms.len(), 0);
    }
}
