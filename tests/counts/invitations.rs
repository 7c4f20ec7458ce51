//! The cost of invitations that wait for an answer: one statement for many of them in a first sync, and none at rest.

use sabha::room::write::profile::MemberProfile;

use super::*;

const INVITATIONS: usize = 100;

/// The number of stripped states that one statement reads.
const AT_ONCE: usize = 32;

#[tokio::test]
async fn invitations_are_read_many_at_once_and_only_when_they_are_told() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let first_sync = async |server: &Server| {
        let before = server.app.db.counters().statements();
        let (_, answer) = server.answer(&bob, None).await;
        (server.app.db.counters().statements() - before, answer)
    };
    // The first one reads data that is not in memory yet.
    first_sync(&server).await;
    let (without, _) = first_sync(&server).await;
    for _ in 0..INVITATIONS {
        let room = server.room(&alice).await;
        let profile = MemberProfile::default();
        server.app.rooms.invite(&alice, &room, bob.user_id(), &profile, None).await.expect("invited");
    }
    first_sync(&server).await;
    let (with, answer) = first_sync(&server).await;
    println!("{without} statements for a first sync, {with} with {INVITATIONS} invitations");
    assert_eq!(answer["rooms"]["invite"].as_object().map(serde_json::Map::len), Some(INVITATIONS));
    assert_eq!(with, without + INVITATIONS.div_ceil(AT_ONCE) as u64, "the rooms and their events are in memory");
    let since = answer["next_batch"].as_str().expect("a token").parse().expect("one of ours");
    let before = server.app.db.counters().statements();
    server.sync(&bob, Some(since)).await;
    assert_eq!(server.app.db.counters().statements() - before, 0, "there is no news");

    let server = server.restart().await;
    let (with, answer) = first_sync(&server).await;
    println!("{with} statements for a first sync with {INVITATIONS} invitations after a restart");
    assert_eq!(answer["rooms"]["invite"].as_object().map(serde_json::Map::len), Some(INVITATIONS));
    assert!(with < INVITATIONS as u64, "{with} statements");
}
