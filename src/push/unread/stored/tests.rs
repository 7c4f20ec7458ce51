//! Tallies that leave memory.

use ruma::RoomVersionId;

use super::*;
use crate::{
    account::LocalDevice,
    push::unread::COLD_EVENTS,
    room::{
        tests::{Server, message, new_room, server},
        write::create::Preset,
    },
    store::tests::NewDatabase,
};

/// The unread messages in a room, by a first sync.
async fn unread(server: &Server, device: &LocalDevice, room_id: &str) -> Option<u64> {
    let (answer, _) = server.sync(device, None).await;
    answer["rooms"]["join"][room_id]["unread_notifications"]["notification_count"].as_u64()
}

#[tokio::test]
async fn a_stored_count_is_used_again_whenever_it_leaves_memory_and_keeps_no_rules_there() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (rooms, push) = (&server.app.rooms, &server.app.push);
    let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
    rooms.join(&bob, &room_id, None).await.expect("joined");
    let sent = COLD_EVENTS + 20;
    for number in 0..sent {
        rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
        // Each look adds what is new, beyond what a new count would reach.
        assert_eq!(unread(&server, &bob, room_id.as_str()).await, Some(number as u64 + 1));
    }
    push.find_quiet_tallies();
    push.find_quiet_tallies();
    push.store_tallies(rooms).await.expect("stored");
    for time in 0..3 {
        push.forget_counts();
        assert_eq!(unread(&server, &bob, room_id.as_str()).await, Some(sent as u64), "time {time}");
    }
    let rules = push.rules(&bob.user).await.expect("read");
    assert_eq!(Arc::strong_count(&rules), 2, "the cache and this test have them");
}

#[tokio::test]
async fn tallies_are_read_page_by_page() {
    const ROOMS: i64 = 200;
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let user_nid = UserNid(1);
        let row = |room: i64| {
            let (room_nid, upto) = (RoomNid(room), Position(room));
            rows::TallyColumns { user_nid, room_nid, upto, basis: vec![1; 16], tally: vec![2; 2_000] }.row()
        };
        db.committer().write(Write::new((1..=ROOMS).map(row).collect())).await.expect("stored");
        for mebibytes in [0, 16, 1 << 14] {
            let stored = Stored::new(&Budget::new(mebibytes << 20));
            for time in 0..2 {
                let before = db.counters().statements();
                for room in 1..=ROOMS {
                    let row = stored.take(&db, (user_nid, RoomNid(room))).await.expect("read").expect("it is stored");
                    assert_eq!(row.upto, room);
                }
                let statements = db.counters().statements() - before;
                // A used tally is read alone. A page has at least two of this size. With no memory at all, there are no pages.
                let most = ROOMS.unsigned_abs() / if time == 1 || mebibytes == 0 { 1 } else { 2 };
                assert!(statements <= most + 1, "{statements} statements with {mebibytes} MiB");
                assert_eq!(statements == 1, mebibytes > 16 && time == 0, "{statements} with {mebibytes} MiB");
            }
            assert!(stored.take(&db, (user_nid, RoomNid(ROOMS + 1))).await.expect("read").is_none());
            assert_eq!(stored.read.len(), usize::from(mebibytes > 0));
        }
    }
}

/// Users with no, few and many stored tallies.
const WITHOUT: UserNid = UserNid(1);
const WITH_FEW: UserNid = UserNid(2);
const WITH_MANY: UserNid = UserNid(3);

/// The rooms of the user with few tallies.
const FEW: i64 = 400;

/// The rooms of the user with many tallies: one less than a prime, for [`shuffled`].
const MANY: i64 = 1_200;

/// The rooms up to the `count`th in no order: at most three in a row go upward.
fn shuffled(count: i64) -> impl Iterator<Item = i64> {
    let step = |index: i64| index * 463 % (MANY + 1);
    (1..=MANY).map(step).filter(move |room| *room <= count)
}

/// The number of statements of looks at rooms.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    pages: u64,
    alone: u64,
}

/// Looks at rooms one by one, of which only those with an even number have stored tallies.
async fn looks(db: &Database, user: UserNid, rooms: impl Iterator<Item = i64>) -> Cost {
    let stored = Stored::new(&Budget::new(1 << 34));
    let mut pages = 0;
    let before = db.counters().statements();
    for room in rooms {
        let page = stored.read.get(&user);
        let row = stored.take(db, (user, RoomNid(room))).await.expect("read");
        assert_eq!(row.map(|row| row.room_nid), (room % 2 == 0 && user != WITHOUT).then_some(room));
        let is_same = match (&page, &stored.read.get(&user)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        pages += u64::from(!is_same);
    }
    Cost { pages, alone: db.counters().statements() - before - pages }
}

#[tokio::test]
async fn looks_in_any_order_read_few_tallies() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let row = |user_nid: UserNid, room: i64| {
            let (room_nid, upto) = (RoomNid(room), Position(room));
            rows::TallyColumns { user_nid, room_nid, upto, basis: vec![1; 16], tally: vec![2; 100] }.row()
        };
        let few = (2..=FEW).step_by(2).map(|room| row(WITH_FEW, room));
        let many = (2..=MANY).step_by(2).map(|room| row(WITH_MANY, room));
        db.committer().write(Write::new(few.chain(many).collect())).await.expect("stored");

        let once = Cost { pages: 1, alone: 0 };
        for user in [WITHOUT, WITH_FEW] {
            assert_eq!(looks(&db, user, 1..=FEW).await, once, "{user:?}, in order");
            assert_eq!(looks(&db, user, (1..=FEW).rev()).await, once, "{user:?}, in descending order");
            assert_eq!(looks(&db, user, shuffled(FEW)).await, once, "{user:?}, in no order");
        }
        // A page has 256 tallies, so those of 512 rooms.
        let after_first = MANY.unsigned_abs() - 2 * PAGE;
        assert_eq!(looks(&db, WITH_MANY, 1..=MANY).await, Cost { pages: 3, alone: 0 }, "in order");
        let first_only = Cost { pages: 1, alone: after_first };
        assert_eq!(looks(&db, WITH_MANY, (1..=MANY).rev()).await, first_only, "in descending order");
        assert_eq!(looks(&db, WITH_MANY, shuffled(MANY)).await, first_only, "in no order");
        // All of the first page may have been read already.
        let later = Cost { pages: 2, alone: LIKE_ONE_ALONE as u64 };
        assert_eq!(looks(&db, WITH_MANY, 700..=MANY).await, later, "in order, from a later room on");
    }
}
