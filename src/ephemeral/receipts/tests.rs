//! Receipts in memory, which follow the commits, with a real database.

use ruma::{OwnedEventId, owned_event_id, user_id};

use super::*;
use crate::{
    account_data::AccountData,
    bus::Bus,
    clock::Clock,
    config::{Config, Presence},
    memory::budget::Budget,
    store::{Database, Write, tests::NewDatabase, vocabulary::User},
};

const ROOM: RoomNid = RoomNid(1);

/// A service with empty memory.
fn service(db: &Arc<Database>) -> Ephemeral {
    let budget = Budget::new(64 << 20);
    let data = Arc::new(AccountData::new(Arc::clone(db), &Config::default().limits, &budget));
    Ephemeral::new(Arc::clone(db), Arc::<Bus>::default(), Clock::manual(0), data, &Presence::default(), &budget)
}

fn receipt(user: &User, kind: Kind, thread: &str, event_id: OwnedEventId) -> (Key, Receipt) {
    let key = Key { user: user.nid, kind, thread: thread.into() };
    let pos = Position::BEFORE_ALL;
    (key, Receipt { user_id: user.user_id.clone(), event_id, ts: 5, pos, event_at: None })
}

async fn seen_by(service: &Ephemeral, viewer: &User) -> Option<String> {
    let upto = service.db.committer().published();
    let seen = service.receipts_since(ROOM, viewer.nid, &Ignored::default(), (Position::BEFORE_ALL, upto)).await;
    seen.unwrap().map(|event| event.get().to_owned())
}

#[tokio::test]
async fn receipts_in_memory_are_like_read_ones_after_each_commit() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let user = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
        let mut write = Write::default();
        user.write_if_new(&mut write);
        db.committer().write(write).await.unwrap();
        let leader = service(&db);
        // Nobody tells this one of a receipt, except the entries of the commit log.
        let follower = service(&db);
        for service in [&leader, &follower] {
            assert_eq!(seen_by(service, &user).await, None, "the room is in memory from now on");
        }
        for (kind, thread, event_id) in [
            (Kind::Read, "", owned_event_id!("$one")),
            (Kind::ReadPrivate, "main", owned_event_id!("$two")),
            (Kind::Read, "", owned_event_id!("$three")),
        ] {
            leader.store(ROOM, user.nid, vec![receipt(&user, kind, thread, event_id)], None).await.unwrap();
            assert!(lock(&leader.receipts.queued).is_empty(), "it is known to everyone");
            let known = leader.receipts.rooms.peek(&ROOM).expect("it was added to what is in memory");
            assert!(known.loaded.initialized());
            assert!(follower.receipts.rooms.peek(&ROOM).is_none(), "it does not have this receipt, and reads it");
            let seen = seen_by(&leader, &user).await;
            assert!(seen.is_some());
            for other in [&follower, &service(&db)] {
                assert_eq!(seen_by(other, &user).await, seen);
            }
        }
    }
}

#[tokio::test]
async fn a_receipt_that_is_not_stored_waits_for_nothing() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let user = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
        let service = service(&db);
        let refused = receipt(&user, Kind::Read, "\0", owned_event_id!("$one"));
        service.store(ROOM, user.nid, vec![refused], None).await.unwrap_err();
        assert!(lock(&service.receipts.queued).is_empty());
        assert_eq!(seen_by(&service, &user).await, None);
    }
}
