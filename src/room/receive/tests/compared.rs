//! The room in memory, as another process sees it, and as it is loaded anew: all of them must be equal, and as the model says.

use ruma::RoomId;
use sabha_federation::{
    graph::Extremity,
    model::{EventReader as _, GraphReader as _},
    sides::{self, hash},
    standing::StateAt,
    state_log::{StateEntry, StateHash},
};

use super::*;
use crate::{
    room::listing::Listing,
    store::{KeyNid, RoomNid, UserNid},
};

/// The parts of a room that follow its events.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    entries: Vec<(KeyNid, StateEntry)>,
    hash: StateHash,
    counts: [usize; 2],
    heroes: Vec<EventNid>,
    /// The forward extremities, and the hashes of the states after them.
    extremities: Vec<(OwnedEventId, i64, bool, StateHash)>,
    /// The positions and numbers of the head.
    head: [i64; 7],
    line: Vec<(Position, EventNid, Flags, String)>,
    listing: Vec<Listing>,
    servers: Vec<String>,
    remote: Vec<Vec<RoomNid>>,
    local: Vec<Option<(Membership, EventNid, Position)>>,
}

impl Snapshot {
    async fn of(rooms: &Rooms, room_id: &RoomId, locals: &[UserNid]) -> Self {
        let room = rooms.find(room_id).await.expect("read").expect("it is stored");
        let writer = rooms.enter_knowing(&room).await.expect("entered");
        let mut extremities = Vec::new();
        for extremity in writer.head().extremities.iter() {
            let after = state_after(rooms, &room, extremity).await;
            let hash = hash(&rooms.reads(&room), after).await.expect("read");
            extremities.push((extremity.event_id.clone(), extremity.depth, extremity.ours, hash));
        }
        assert_eq!(writer.head().hash, room.view().state.hash(), "nothing is appended");
        drop(writer);
        let head = room.head.lock().await;
        let numbers = [head.depth, head.last_pos.0, head.state_pos.0, head.reject_epoch, head.our_pos.0];
        let [depth, last_pos, state_pos, reject_epoch, our_pos] = numbers;
        let head = [depth, last_pos, state_pos, reject_epoch, our_pos, head.bump_pos.0, head.changes];
        let (line, more) = rooms.timeline(&room, Position::BEFORE_ALL, room.last_pos(), 200).await.expect("read");
        assert!(!more, "the rooms of these tests are small");
        let content = |event: &StoredEvent| event.pdu.content.get().to_owned();
        let line = line.iter().map(|(pos, event)| (*pos, event.nid, event.standing.flags, content(event))).collect();
        let mut remote = Vec::new();
        for user in [carol(), dave()] {
            let user = rooms.db.user(user, false).await.expect("a user");
            remote.push(rooms.joined_rooms(user.nid).await.expect("read"));
        }
        let mut local = Vec::new();
        for user in locals {
            let entry = rooms.member_entry(*user, room.nid).await.expect("read");
            local.push(entry.map(|entry| (entry.membership, entry.event_nid, entry.pos)));
        }
        let servers = rooms.servers_in(room.nid).await.expect("read");
        let listing = rooms.listings(&[room.nid]).await.expect("read");
        let view = room.view();
        Self {
            entries: view.state.entries().to_vec(),
            hash: view.state.hash(),
            counts: [view.state.joined(), view.state.invited()],
            heroes: view.heroes.events().to_vec(),
            extremities,
            head,
            line,
            listing,
            servers: servers.iter().map(ToString::to_string).collect(),
            remote,
            local,
        }
    }
}

/// The state after a forward extremity.
async fn state_after(rooms: &Rooms, room: &Room, extremity: &Extremity) -> StateAt {
    if let Some(after) = extremity.after {
        return after;
    }
    let node = rooms.reads(room).nodes(&[extremity.nid]).await.expect("read").remove(0);
    StateAt::in_log(node.place.expect("it is on the line").pos)
}

impl World {
    /// Compares the room with the model, with a fresh load, and with the room of the process that follows.
    pub(super) async fn check(&self) {
        let locals = self.locals.as_slice();
        let now = Snapshot::of(self.rooms(), &self.room_id, locals).await;
        let fresh = other_service(&self.server);
        assert_eq!(now, Snapshot::of(&fresh, &self.room_id, locals).await, "a fresh load is as memory is");
        assert_eq!(now, Snapshot::of(&self.follower, &self.room_id, locals).await, "another process sees the same");

        let tips = self.tips().await;
        assert_eq!(self.model.tips(), tips.iter().cloned().collect(), "the forward extremities");
        assert_eq!(self.state().await, self.model.resolved(&tips), "the current state");
        let (last, before) = self.model.last();
        let event = self.event_of(last).await;
        assert_eq!(&self.state_at(event.standing.before, before).await, before, "the state before {:?}", event.pdu);
        if self.evicts {
            self.evict().await;
        }
    }

    /// The current state.
    pub(super) async fn state(&self) -> State {
        let room = self.room().await;
        let nids: Vec<_> = room.view().state.entries().iter().map(|(_, entry)| entry.event_nid).collect();
        let events = self.rooms().events.list(&room, &nids).await.expect("read");
        let key = |pdu: &Pdu| (pdu.event_type.clone(), pdu.state_key.clone().expect("a state event"));
        events.iter().map(|event| (key(&event.pdu), event.event_id().to_owned())).collect()
    }

    /// The values that a state has for the keys of the current one and of another.
    async fn state_at(&self, at: StateAt, other: &State) -> State {
        let (room, mut found) = (self.room().await, State::new());
        let reads = self.rooms().reads(&room);
        for key in self.state().await.keys().chain(other.keys()) {
            let (event_type, state_key) = key;
            let Some(nid) = reads.key(event_type, state_key).await.expect("read") else { continue };
            if let Some(held) = sides::value(&reads, at, nid).await.expect("read") {
                found.insert(key.clone(), self.event(held.event_nid).await.event_id().to_owned());
            }
        }
        found
    }
}
