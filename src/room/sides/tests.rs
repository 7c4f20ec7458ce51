//! Sides that are stored by hand.

use ruma::RoomVersionId;
use sabha_federation::{
    held::{Held, StateDelta},
    ids::{EventNid, KeyNid},
    sides::encode,
};

use super::*;
use crate::{
    room::{
        tests::{Server, new_room, other_service, servers_on_both_engines},
        write::create::Preset,
    },
    store::{Write, log::Touch, sides::StateSideColumns},
};

const BASE: Position = Position(3);

async fn room(server: &Server, name: &str) -> Arc<Room> {
    let user = server.register(name).await;
    let rooms = &server.app.rooms;
    let room_id = rooms.create(&user, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
    rooms.find(&room_id).await.expect("read").expect("it was created")
}

/// A branch of sides, of which each changes one key.
fn branch(rooms: &Rooms, length: i64) -> Vec<Arc<Side>> {
    let secret = &rooms.state_hash_key;
    let mut sides: Vec<Arc<Side>> = Vec::new();
    for number in 0..length {
        let nid = rooms.db.committer().ids().side().expect("a number");
        let held = Held { event_nid: EventNid(100 + number), membership: None };
        let change = StateDelta::from_iter([(KeyNid(1 + number % 5), Some(held))]);
        let was = change.keys().map(|key| (key, sides.last().and_then(|side| side.get(key)).flatten())).collect();
        let side = match sides.last() {
            Some(last) => last.next(nid, change, &was, secret),
            None => Side::on_log(nid, (BASE, StateHash::EMPTY), change, &was, secret),
        };
        sides.push(Arc::new(side));
    }
    sides
}

fn columns(room: RoomNid, side: &Side) -> StateSideColumns {
    StateSideColumns {
        side_nid: side.nid,
        room_nid: room,
        base_pos: side.base_pos,
        parent_nid: side.parent.as_ref().map(|parent| parent.nid),
        ordinal: side.ordinal.into(),
        hash: side.hash.to_bytes().to_vec(),
        delta: encode(&side.delta),
    }
}

async fn store(rooms: &Rooms, room: RoomNid, sides: impl IntoIterator<Item = StateSideColumns>) {
    let write = Write::new(sides.into_iter().map(StateSideColumns::row).collect());
    rooms.db.committer().write(write.touching(Touch::Graph { room })).await.expect("committed");
}

#[tokio::test]
async fn a_side_is_read_with_its_parents() {
    for server in servers_on_both_engines().await {
        let room = room(&server, "alice").await;
        let sides = branch(&server.app.rooms, 70);
        store(&server.app.rooms, room.nid, sides.iter().map(|side| columns(room.nid, side))).await;
        for side in &sides {
            // Nothing is in memory.
            let rooms = other_service(&server);
            let statements = || rooms.db.counters().statements();
            let before = statements();
            assert_eq!(rooms.side(&room, side.nid).await.expect("read"), *side);
            let read = statements() - before;
            assert_eq!(read, u64::from(1 + side.ordinal.count_ones()), "one for each parent of {}", side.ordinal);
            let before = statements();
            assert_eq!(rooms.side(&room, side.nid).await.expect("read"), *side);
            assert_eq!(statements(), before);
        }
        for side in &sides {
            let rooms = &server.app.rooms;
            assert_eq!(rooms.side_with(&room, side.hash).await.expect("read").as_ref(), Some(side));
        }
        assert_eq!(server.app.rooms.side_with(&room, StateHash::EMPTY).await.expect("read"), None);
    }
}

#[tokio::test]
async fn a_side_whose_rows_do_not_fit_together_is_damage() {
    for server in servers_on_both_engines().await {
        let (room, other) = (room(&server, "alice").await, room(&server, "bob").await);
        let rooms = &server.app.rooms;
        let check = async |what: &str, change: &dyn Fn(&mut StateSideColumns), in_parent: bool| {
            let sides = branch(rooms, 2);
            let rows = sides.iter().enumerate().map(|(index, side)| {
                let mut row = columns(room.nid, side);
                if (index == 0) == in_parent {
                    change(&mut row);
                }
                row
            });
            store(rooms, room.nid, rows.collect::<Vec<_>>()).await;
            assert!(rooms.side(&room, sides[1].nid).await.expect_err(what).is_damage(), "{what}");
        };
        for in_parent in [true, false] {
            check("another room", &|row| row.room_nid = other.nid, in_parent).await;
            check("a hash of a wrong length", &|row| row.hash.truncate(15), in_parent).await;
            check("a damaged delta", &|row| row.delta[0] ^= 1, in_parent).await;
            check("another base", &|row| row.base_pos = Position(4), in_parent).await;
            check("no number", &|row| row.ordinal = -1, in_parent).await;
            check("another number", &|row| row.ordinal += 2, in_parent).await;
        }
        check("a missing parent", &|row| row.parent_nid = Some(SideNid(i64::MAX)), false).await;
        check("its own parent", &|row| row.parent_nid = Some(row.side_nid), false).await;
        check("no parent", &|row| row.parent_nid = None, false).await;
        assert!(rooms.side(&room, SideNid(i64::MAX)).await.expect_err("it is missing").is_damage());
        // The room itself can be read, and its other sides too.
        let sides = branch(rooms, 3);
        store(rooms, room.nid, sides.iter().map(|side| columns(room.nid, side))).await;
        assert_eq!(rooms.side(&room, sides[2].nid).await.expect("read"), sides[2]);
    }
}

#[tokio::test]
async fn sides_that_were_read_before_memory_began_anew_are_not_kept() {
    for server in servers_on_both_engines().await {
        let room = room(&server, "alice").await;
        let rooms = &server.app.rooms;
        let sides = branch(rooms, 1);
        store(rooms, room.nid, [columns(room.nid, &sides[0])]).await;
        let before = rooms.sides.restarts();
        rooms.side(&room, sides[0].nid).await.expect("read");
        assert_eq!(rooms.sides.cache.len(), 1);
        rooms.sides.evict_all();
        rooms.sides.keep(room.nid, &sides[0], before);
        assert_eq!(rooms.sides.cache.len(), 0);
    }
}
