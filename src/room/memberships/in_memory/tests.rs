//! The order of commits and of rows that were read before them.

use ruma::user_id;

use super::*;
use crate::store::{Write, log::Touch, remote_members::RemoteMemberColumns, tests::NewDatabase};

fn entry(membership: Membership, pos: i64, forgotten: bool) -> MemberEntry {
    let (room, event_nid) = (RoomNid(1), EventNid(pos));
    MemberEntry { room, membership, event_nid, pos: Position(pos), forgotten }
}

#[test]
fn the_later_entry_is_right_in_whatever_order_they_come() {
    let (left, forgotten) = (entry(Membership::Leave, 5, false), entry(Membership::Leave, 5, true));
    let joined = entry(Membership::Join, 7, false);
    let orders = [
        [&left, &forgotten, &joined],
        [&left, &joined, &forgotten],
        [&forgotten, &left, &joined],
        [&forgotten, &joined, &left],
        [&joined, &left, &forgotten],
        [&joined, &forgotten, &left],
    ];
    for order in orders {
        let mut rooms = UserRooms::default();
        rooms.update(order[0].clone());
        rooms.update(order[1].clone());
        let both = &rooms.rooms[&RoomNid(1)];
        let has_joined = order[..2].iter().any(|entry| entry.membership == Membership::Join);
        assert_eq!((both.pos.0, both.forgotten), if has_joined { (7, false) } else { (5, true) });
        rooms.update(order[2].clone());
        assert_eq!(rooms.rooms[&RoomNid(1)].pos, Position(7));
    }
}

#[tokio::test]
async fn rows_that_were_read_before_a_commit_do_not_undo_it() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let carol = db.user(user_id!("@carol:remote.test"), false).await.expect("a user");
        let mut write = Write::default();
        carol.write_if_new(&mut write);
        let [first, second] = [1, 2].map(RoomNid);
        for room in [first, second] {
            write.push(RemoteMemberColumns { user_nid: carol.nid, room_nid: room, joined: true }.row());
            write.touch(Touch::RemoteMember { room, user: carol.nid, joined: true });
        }
        db.committer().write(write).await.expect("stored");
        let memberships = Memberships::new(Arc::clone(&db));
        // Somebody is about to read the rows.
        lock(&memberships.users).entry(carol.nid).or_default();
        memberships.handle().update_remote(carol.nid, first, false);
        memberships.of(carol.nid).await.expect("read");
        assert_eq!(memberships.handle().joined_rooms(carol.nid), Some(vec![second]));
    }
}
