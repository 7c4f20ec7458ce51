//! The cost of invitations: of making many at once, and of those that wait for an answer: one statement for many of them
//! in a first sync, and none at rest.

use sabha::room::write::{invitee::Invitee, profile::MemberProfile};

use super::*;

const INVITATIONS: usize = 100;

/// The users whom a new room invites, about as many as it may by default.
const INVITED: usize = 192;

/// The number of stripped states, or of invited users, that one statement reads.
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

#[tokio::test]
async fn the_users_whom_a_new_room_invites_are_checked_many_at_once_and_not_loaded() {
    let server = Server::start().await;
    server.register("alice").await;
    let mut user_ids = Vec::with_capacity(INVITED);
    for number in 0..INVITED {
        user_ids.push(server.register(&format!("user{number}")).await.user_id().to_owned());
    }
    let server = server.restart().await;
    let alice = server.device("alice").await;
    let before = server.app.db.counters().statements();
    let invitees = server.app.rooms.invitees(&alice, user_ids.clone()).await.expect("they may be invited");
    let asked = server.app.db.counters().statements() - before;
    println!("{asked} statements to check {INVITED} users");
    assert_eq!(invitees.len(), INVITED);
    // Their short ids, their accounts with the profiles, and the numbers of their invitations.
    assert!(asked <= 3 * INVITED.div_ceil(AT_ONCE) as u64, "{asked} statements");
    for user_id in &user_ids {
        let user = server.app.db.find_user(user_id).await.expect("the database works").expect("they are registered");
        assert_eq!(server.app.rooms.with_memberships(user.nid, |_| Some(())), None, "{user_id} is not here");
    }

    let create = async |invite: &[Invitee]| {
        let new = NewRoom { invite: invite.to_vec(), ..server.new_room(None) };
        let before = server.app.db.counters().statements();
        server.app.rooms.create(&alice, new).await.expect("the room is made");
        server.app.db.counters().statements() - before
    };
    // The first ones read data that is not in memory yet.
    create(&invitees).await;
    let (without, with) = (create(&[]).await, create(&invitees).await);
    println!("{without} statements for a room, {with} with {INVITED} invitations");
    assert!(with < without + INVITED as u64, "{without} statements without invitations, {with} with them");
}
