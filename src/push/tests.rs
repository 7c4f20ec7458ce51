//! Rules and ignored users that are evicted and read again, with a real database.

use ruma::{
    push::{NewPatternedPushRule, NewPushRule},
    user_id,
};

use super::*;
use crate::{
    config::Config,
    memory::budget::Budget,
    store::{Database, tests::NewDatabase},
};

/// A new service has empty caches.
fn service(db: &Arc<Database>) -> Push {
    let budget = Budget::new(64 << 20);
    Push::new(Arc::new(AccountData::new(Arc::clone(db), &Config::default().limits, &budget)), &budget)
}

#[tokio::test]
async fn what_is_forgotten_and_read_again_is_the_same_until_it_changes() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        check_what_is_read_again(&db).await;
    }
}

async fn check_what_is_read_again(db: &Arc<Database>) {
    let user = db.user(user_id!("@alice:example.org"), true).await.unwrap();
    // Nobody tells this one of a change, except the entries of the commit log.
    let follower = service(db);
    let basis = async || {
        let push = service(db);
        let of_follower = (follower.rules(&user).await.unwrap(), follower.data.ignored(&user).await.unwrap());
        let (rules, ignored) = (push.rules(&user).await.unwrap(), push.data.ignored(&user).await.unwrap());
        assert!(rules.version == of_follower.0.version && rules.digest == of_follower.0.digest);
        assert_eq!(ignored.version(), of_follower.1.version());
        unread::Basis { rules, ignored, joined_at: Position::BEFORE_ALL }
    };
    let first = basis().await;
    let same = |one: &unread::Basis, other: &unread::Basis| {
        // A stored tally goes by the digest, and one in memory by the versions.
        let (one, other) = (one.version(), other.version());
        assert_eq!(one == other, one.digest() == other.digest());
        one == other
    };
    assert!(same(&first, &basis().await), "nothing was stored yet");

    let word = NewPatternedPushRule::new("cake".to_owned(), "cake".to_owned(), vec![]);
    let rule = NewPushRule::Content(word);
    service(db).change(&user, |ruleset| rules::put(ruleset, rule, None, None)).await.unwrap();
    let second = basis().await;
    assert!(!same(&first, &second), "the rules were changed");
    assert!(same(&second, &basis().await));

    let content = RawValue::from_string(r#"{"ignored_users":{"@eve:example.org":{}}}"#.to_owned()).unwrap();
    service(db).data.put(user.nid, ACCOUNT, "m.ignored_user_list", content).await.unwrap();
    let third = basis().await;
    assert!(!same(&second, &third), "the ignored users were changed");
    assert!(same(&third, &basis().await));
    let later = unread::Basis { joined_at: Position(1), ..third.clone() };
    assert!(!same(&third, &later), "another stay");

    let published = db.committer().published();
    let since_start =
        async |push: &Push| push.data.list_since(user.nid, Position::BEFORE_ALL, published).await.unwrap();
    assert_eq!(since_start(&follower).await.len(), 2, "memory does not reach back, and reads the table");
    let before = Position(published.0 - 1);
    assert_eq!(follower.data.list_since(user.nid, before, published).await.unwrap().len(), 1);
    assert_eq!(service(db).data.list_since(user.nid, before, published).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_cached_after_it() {
    for NewDatabase { db, .. } in NewDatabase::of_both_engines().await {
        let user = db.user(user_id!("@alice:example.org"), true).await.unwrap();
        let data = service(&db).data;
        let read_at = data.published();
        let is_kept = |read_at: Position| {
            let mut kept = false;
            data.keep_if_unchanged(user.nid, read_at, || kept = true);
            kept
        };
        assert!(is_kept(read_at));
        let content = RawValue::from_string("{}".to_owned()).unwrap();
        data.put(user.nid, ACCOUNT, PUSH_RULES, content).await.unwrap();
        assert!(!is_kept(read_at), "another process may have changed it while it was read");
        assert!(is_kept(data.published()));
    }
}
