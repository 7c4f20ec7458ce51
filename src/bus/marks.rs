//! The marks of a commit, from its entry in the commit log: the users and rooms whom it concerns.

use std::{collections::BTreeMap, sync::Arc};

use sabha_federation::{standing::Flags, state_log::Membership};

use super::Bus;
use crate::store::{
    Position, RoomNid, UserNid,
    log::{LogEntry, Memory, Touch},
};

/// The room of account data that belongs to no room.
const ACCOUNT: RoomNid = RoomNid(0);

/// Returns the rooms that a user is joined to; `None` if memory does not hold them.
type JoinedRooms = Box<dyn Fn(UserNid) -> Option<Vec<RoomNid>> + Send + Sync>;

/// Marks the users whom each commit concerns, before its position is visible.
pub struct Marks {
    bus: Arc<Bus>,
    joined_rooms: JoinedRooms,
}

impl Marks {
    pub fn new(bus: Arc<Bus>, joined_rooms: impl Fn(UserNid) -> Option<Vec<RoomNid>> + Send + Sync + 'static) -> Self {
        Self { bus, joined_rooms: Box::new(joined_rooms) }
    }

    fn mark(&self, touch: &Touch, at: Position) {
        match *touch {
            Touch::Receipt { room, user, private } => self.bus.mark_receipts(user, room, !private, at),
            Touch::AccountData { user, room: ACCOUNT, .. }
            | Touch::KeyCounts { user, .. }
            | Touch::ToDevice { user, .. } => self.bus.mark_user(user, at),
            Touch::AccountData { user, room, .. } => self.bus.mark_user_in(user, room, at),
            Touch::DeviceList { user } => {
                self.bus.mark_user(user, at);
                match (self.joined_rooms)(user) {
                    Some(rooms) => self.bus.mark_members(&rooms, at),
                    // An extra wake-up costs little; a missing one hides the change.
                    None => self.bus.mark_everyone(at),
                }
            }
            Touch::Member { room, user, membership, forgotten: false } => {
                if membership == Membership::Join.code() {
                    self.bus.watch(user, room);
                } else {
                    self.bus.departed(user, room);
                }
                // This includes users who were never in the room (invites) or just left it.
                self.bus.mark_user_in(user, room, at);
            }
            // These mark rooms, see `apply`.
            Touch::Event { .. } | Touch::State { .. } | Touch::Jump { .. } | Touch::Redacted { .. } => {}
            // No sync shows these.
            Touch::Member { forgotten: true, .. }
            | Touch::Word { .. }
            | Touch::Graph { .. }
            | Touch::RemoteMember { .. }
            | Touch::Txn { .. }
            | Touch::Device { .. }
            | Touch::RemoteDevices { .. }
            | Touch::ToDeviceGone { .. }
            | Touch::Sessions { .. }
            | Touch::Account { .. }
            | Touch::Profile { .. }
            | Touch::Alias { .. }
            | Touch::Directory { .. }
            | Touch::Job
            | Touch::Due { .. }
            | Touch::FedItem { .. }
            | Touch::Leftover
            | Touch::Lease { .. } => {}
        }
    }
}

impl Memory for Marks {
    fn apply(&self, entry: &LogEntry) {
        // Each room once: a busy one has many events in a batch. Looks see all of the batch, or nothing.
        let mut rooms: BTreeMap<RoomNid, Position> = BTreeMap::new();
        for (at, touch) in &entry.touches {
            self.mark(touch, *at);
            match touch {
                Touch::State { room, .. } | Touch::Jump { room } => _ = rooms.insert(*room, *at),
                // Only on the line an accepted event is news: clients do not see the others.
                Touch::Event { room, sub: 0, flags, .. } if Flags::from_bits(*flags).is_accepted() => {
                    rooms.insert(*room, *at);
                }
                _ => {}
            }
        }
        for (room, at) in rooms {
            self.bus.mark_room(room, at);
        }
    }

    fn forget(&self, upto: Position) {
        self.bus.forget_all(upto);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{DeviceNid, EventNid};

    const ALICE: UserNid = UserNid(1);
    const BOB: UserNid = UserNid(2);
    const STRANGER: UserNid = UserNid(3);
    const ROOM: RoomNid = RoomNid(7);
    const BEFORE: Position = Position(10);
    const AT: Position = Position(11);

    /// The users who have news after this touch. Alice and Bob are in [`ROOM`]; memory holds Alice's rooms only.
    fn marked(touch: Touch) -> Vec<UserNid> {
        let bus = Arc::new(Bus::default());
        let live = [ALICE, BOB, STRANGER].map(|user| bus.live(user, BEFORE, 0));
        for user in [ALICE, BOB] {
            bus.watch(user, ROOM);
        }
        let marks = Marks::new(Arc::clone(&bus), |user| (user == ALICE).then(|| vec![ROOM]));
        marks.apply(&LogEntry { after: BEFORE, pos: AT, at_ms: 0, bytes_before: 0, touches: vec![(AT, touch)] });
        live.iter().filter(|live| live.latest() == AT).map(|live| live.user).collect()
    }

    fn member(user: UserNid, membership: Membership) -> Touch {
        Touch::Member { room: ROOM, user, membership: membership.code(), forgotten: false }
    }

    #[test]
    fn a_touch_marks_those_who_can_see_it() {
        let device = DeviceNid(5);
        for (touch, expected) in [
            (Touch::Receipt { room: ROOM, user: ALICE, private: false }, vec![ALICE, BOB]),
            (Touch::Receipt { room: ROOM, user: ALICE, private: true }, vec![ALICE]),
            (Touch::AccountData { user: BOB, room: ROOM, kind: 0 }, vec![BOB]),
            (Touch::KeyCounts { user: BOB, device }, vec![BOB]),
            (Touch::ToDevice { user: STRANGER, device, messages: 1, bytes: 1 }, vec![STRANGER]),
            (Touch::ToDeviceGone { device, upto: AT, messages: 1, bytes: 1 }, vec![]),
            (Touch::DeviceList { user: ALICE }, vec![ALICE, BOB]),
            (Touch::DeviceList { user: BOB }, vec![ALICE, BOB, STRANGER]),
            (Touch::Account { user: ALICE }, vec![]),
            (Touch::RemoteMember { room: ROOM, user: STRANGER, joined: true }, vec![]),
            (Touch::RemoteDevices { user: STRANGER }, vec![]),
            (Touch::Graph { room: ROOM }, vec![]),
            (Touch::Jump { room: ROOM }, vec![ALICE, BOB]),
            (Touch::Event { room: ROOM, event: EventNid(1), sub: 0, flags: 0 }, vec![ALICE, BOB]),
            (Touch::Event { room: ROOM, event: EventNid(1), sub: -1, flags: 0 }, vec![]),
            (Touch::Event { room: ROOM, event: EventNid(1), sub: 0, flags: Flags::OUTLIER.bits() }, vec![]),
            (member(STRANGER, Membership::Invite), vec![STRANGER]),
            (member(ALICE, Membership::Leave), vec![ALICE]),
        ] {
            assert_eq!(marked(touch.clone()), expected, "{touch:?}");
        }
    }
}
