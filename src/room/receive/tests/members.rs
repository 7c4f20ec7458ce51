//! Memberships, which follow the state of the room and not its events.

use ruma::user_id;

use super::*;

#[tokio::test]
async fn joins_that_resolution_takes_back_are_departures_without_an_event() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let erin = user_id!("@erin:third.test");
        let bob = world.server.register("bob").await;
        let base = world.tips().await;
        world.rooms().join(&bob, &world.room_id, None).await.expect("joined");
        world.locals.push(bob.user.nid);
        world.learn_line().await;
        world.push_new(erin, member(erin, Membership::Join)).await;
        let room = world.room().await.nid;
        assert_eq!(world.rooms().servers_in(room).await.expect("read"), ["other.test", "remote.test", "third.test"]);
        let (_, since) = world.server.sync(&bob, None).await;

        // Carol closes the room before she knows of them.
        let closed = world.push_on(&base, carol(), join_rule("invite")).await;
        for user in [bob.user_id(), erin] {
            assert_eq!(world.current("m.room.member", user.as_str()).await, None, "{user}");
        }
        let entry = world.rooms().member_entry(bob.user.nid, room).await.expect("read").expect("he was in it");
        assert_eq!((entry.membership, entry.event_nid), (Membership::Leave, world.event_of(&closed).await.nid));
        assert_eq!(world.rooms().servers_in(room).await.expect("read"), ["other.test", "remote.test"]);
        let gone = format!("room_server WHERE joined = 0 AND changed_pos = {}", entry.pos.0);
        assert_eq!(world.rows(&gone).await, 1);
        let (answer, _) = world.server.sync(&bob, Some(since)).await;
        let rooms = |of: &str| !answer["rooms"][of][world.room_id.as_str()].is_null();
        assert_eq!(["leave", "join"].map(rooms), [true, false], "{answer}");

        let tips = world.tips().await;
        let merged = world.push_on(&tips, carol(), message("without them")).await;
        assert_eq!(world.event_of(&merged).await.standing.flags, Flags::TIP);
        world.rooms().send(&bob, &world.room_id, message("I am out"), None).await.expect_err("he has left");
        world.push_new(carol(), member(bob.user_id(), Membership::Invite)).await;
        world.rooms().join(&bob, &world.room_id, None).await.expect("invited");
        world.learn_line().await;
        world.check().await;
    }
}

#[tokio::test]
async fn a_ban_by_another_server_ends_the_membership_of_a_local_user() {
    let mut world = World::new().await;
    let bob = world.server.register("bob").await;
    let base = world.tips().await;
    world.rooms().join(&bob, &world.room_id, None).await.expect("joined");
    world.locals.push(bob.user.nid);
    world.learn_line().await;
    // On another branch than his join.
    let ban = world.push_on(&base, carol(), member(bob.user_id(), Membership::Ban)).await;
    assert_eq!(world.current("m.room.member", bob.user_id().as_str()).await.as_ref(), Some(&ban));
    let room = world.room().await.nid;
    let entry = world.rooms().member_entry(bob.user.nid, room).await.expect("read").expect("he was in it");
    assert_eq!((entry.membership, entry.event_nid), (Membership::Ban, world.event_of(&ban).await.nid));
    world.send(message("without him")).await;
}
