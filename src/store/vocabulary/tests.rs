//! Words that were made and stored, and users who are forgotten.

use ruma::user_id;

use super::*;
use crate::store::{
    Error, StateKey, Write,
    tests::{NewDatabase, failing},
};

/// A write of the words that are not known to be stored.
fn write_new(user: &User, event_type: &EventType, key: &StateKey) -> Write {
    let mut write = Write::default();
    user.write_if_new(&mut write);
    event_type.write_if_new(&mut write);
    key.write_if_new(&mut write);
    write
}

#[tokio::test]
async fn words_are_known_to_be_stored_once_their_write_is() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let user = db.user(user_id!("@alice:sabha.test"), true).await.unwrap();
        let event_type = db.event_type("m.example").await.unwrap();
        let key = db.state_key("m.example", "a").await.unwrap();
        let write = || write_new(&user, &event_type, &key);
        db.committer().write(failing(write())).await.unwrap_err();
        assert_eq!(write().rows.len(), 3, "the next write must carry them again");
        // Another one with the same words is on its way.
        let other = db.committer().submit::<Error>(1, |_| Ok(write())).unwrap();
        db.committer().write(write()).await.unwrap();
        other.wait().await.unwrap();
        assert_eq!(write().rows.len(), 0);
        let vocabulary = db.vocabulary();
        assert!(super::read(&vocabulary.types).new.is_empty(), "none is on its way any more");
        // Empty memory reads the same words.
        *super::write(&vocabulary.users) = Users::default();
        *super::write(&vocabulary.types) = Types::default();
        let user_again = db.find_user(&user.user_id).await.unwrap().unwrap();
        let type_again = db.event_type("m.example").await.unwrap();
        assert_eq!((user_again.nid, type_again.nid), (user.nid, event_type.nid));
        assert_eq!(write_new(&user_again, &type_again, &key).rows.len(), 0);
    }
}

#[tokio::test]
async fn event_types_with_a_nul_are_stored_and_found_again() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let mut made = Vec::new();
        for event_type in ["m.example\0", "m.example\u{10FFFE}", "m.example\u{10FFFE}0", "m.example"] {
            let event_type = db.event_type(event_type).await.unwrap();
            let mut write = Write::default();
            event_type.write_if_new(&mut write);
            db.committer().write(write).await.unwrap();
            made.push(event_type);
        }
        *super::write(&db.vocabulary().types) = Types::default();
        for known in made {
            let again = db.event_type(&known.event_type).await.unwrap();
            assert_eq!((again.nid, again.stored.is_stored()), (known.nid, true), "{known:?}");
        }
    }
}

#[tokio::test]
async fn a_pair_that_was_looked_for_in_vain_is_made_without_another_look() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        assert!(db.find_state_key("m.example", "a").await.unwrap().is_none());
        let statements = db.counters().statements();
        let key = db.state_key("m.example", "a").await.unwrap();
        assert_eq!(db.counters().statements(), statements);
        // The pair was never stored: whoever looks again asks the database.
        drop(key);
        db.vocabulary().keys.forget_new();
        db.state_key("m.example", "a").await.unwrap();
        assert_eq!(db.counters().statements(), statements + 1);
    }
}

#[test]
fn only_users_who_can_be_read_again_are_forgotten() {
    let mut users = Users::default();
    let held = users.add(UserNid(1), user_id!("@held:example.org"), None, true);
    users.add(UserNid(2), user_id!("@stored:example.org"), None, true);
    users.add(UserNid(3), user_id!("@new:example.org"), None, false);
    users.forget(3);
    assert_eq!(users.by_id.len(), 3, "there is room for them");
    users.forget(2);
    let mut left: Vec<_> = users.by_nid.keys().copied().collect();
    left.sort_unstable();
    assert_eq!((left, users.by_id.len()), (vec![UserNid(1), UserNid(3)], 2));
    drop(held);
    users.forget(1);
    assert_eq!(users.by_nid.keys().copied().collect::<Vec<_>>(), [UserNid(3)]);
}
