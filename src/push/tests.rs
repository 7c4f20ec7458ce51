//! Rules and ignored users that are evicted and read again, with a real database.

use ruma::{
    push::{NewPatternedPushRule, NewPushRule},
    user_id,
};

use super::*;
use crate::{
    bus::Bus,
    clock::Clock,
    config::Config,
    store::{Database, DatabaseOptions, Durability, Patience},
};

async fn open(path: &std::path::Path) -> Arc<Database> {
    let options = DatabaseOptions {
        location: DatabaseOptions::location(&format!("sqlite:{}", path.display())).expect("a path"),
        durability: Durability::Process,
        readers: 4,
        server_name: "example.org".to_owned(),
        incarnation: 1,
        clock: Clock::manual(0),
        patience: Patience::default(),
    };
    Arc::new(Database::open(options).await.expect("a new database opens"))
}

#[tokio::test]
async fn what_is_forgotten_and_read_again_is_the_same_until_it_changes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let db = open(&directory.path().join("db")).await;
    let user = db.user(user_id!("@alice:example.org"), true).await.unwrap();
    let service =
        || Push::new(Arc::new(AccountData::new(Arc::clone(&db), Arc::<Bus>::default(), &Config::default().limits)));
    let basis = async || {
        // A new service has empty caches.
        let push = service();
        let (rules, ignored) = (push.rules(&user).await.unwrap(), push.data.ignored(&user).await.unwrap());
        unread::Basis { rules, ignored, joined_at: Position::BEFORE_ALL }
    };
    let first = basis().await;
    let same = |one: &unread::Basis, other: &unread::Basis| {
        // A stored tally goes by the digest, and one in memory by the versions.
        assert_eq!(one == other, one.digest() == other.digest());
        one == other
    };
    assert!(same(&first, &basis().await), "nothing was stored yet");

    let word = NewPatternedPushRule::new("cake".to_owned(), "cake".to_owned(), vec![]);
    let rule = NewPushRule::Content(word);
    service().change(&user, |ruleset| rules::put(ruleset, rule, None, None)).await.unwrap();
    let second = basis().await;
    assert!(!same(&first, &second), "the rules were changed");
    assert!(same(&second, &basis().await));

    let content = RawValue::from_string(r#"{"ignored_users":{"@eve:example.org":{}}}"#.to_owned()).unwrap();
    service().data.put(user.nid, ACCOUNT, "m.ignored_user_list", content).await.unwrap();
    let third = basis().await;
    assert!(!same(&second, &third), "the ignored users were changed");
    assert!(same(&third, &basis().await));
    let later = unread::Basis { joined_at: Position(1), ..third.clone() };
    assert!(!same(&third, &later), "another stay");
    db.close().await;
}
