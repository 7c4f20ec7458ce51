//! Members of other servers, by events whose outcomes are made by hand.

use ruma::{OwnedServerName, user_id};
use serde_json::value::to_raw_value;

use super::*;
use crate::{
    room::{
        event::membership_name,
        tests::{other_service, servers_on_both_engines},
    },
    store::{RoomNid, devices::DeviceChangeColumns, tests::touched_by},
    sync::token::SyncToken,
};

mod followed;

impl World {
    /// A member event that a user of another server sends, and its outcome.
    pub(super) fn as_member(
        user: &Arc<User>,
        membership: Membership,
    ) -> (EventDraft, impl FnOnce(&mut Built) -> Outcome + use<>) {
        let draft = EventDraft {
            event_type: "m.room.member".to_owned(),
            state_key: Some(user.user_id.as_str().to_owned()),
            content: to_raw_value(&json!({ "membership": membership_name(membership) })).expect("JSON"),
            redacts: None,
        };
        let member = Some(ChangedMember::Remote(Arc::clone(user)));
        let outcome = move |built: &mut Built| Outcome {
            flags: Flags::NONE,
            ..Outcome::of_local(built, Some(membership), member, None)
        };
        (draft, outcome)
    }

    pub(super) async fn change(&self, user: &Arc<User>, membership: Membership) -> EventNid {
        let (draft, outcome) = Self::as_member(user, membership);
        self.receive(user, draft, outcome).await
    }

    async fn servers(&self) -> Vec<OwnedServerName> {
        self.rooms().servers_in(self.room().await.nid).await.expect("read")
    }

    /// The users whose device lists alice's client must fetch again, and those whom it may forget.
    async fn device_lists(&self, since: &mut Option<SyncToken>) -> [Vec<String>; 2] {
        let (answer, next) = self.server.sync(&self.alice, since.take()).await;
        *since = Some(next);
        ["changed", "left"].map(|name| {
            let users = answer["device_lists"][name].as_array().into_iter().flatten();
            users.map(|user| user.as_str().expect("a user ID").to_owned()).collect()
        })
    }
}

#[tokio::test]
async fn a_member_of_another_server_shares_the_room_while_joined() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let (rooms, room, alice) = (world.rooms(), world.room().await.nid, world.alice.user.nid);
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let follower = other_service(&world.server);
        let mut was_joined = false;
        for membership in [
            Membership::Invite,
            Membership::Join,
            // A new name.
            Membership::Join,
            Membership::Leave,
            Membership::Knock,
            Membership::Join,
            Membership::Ban,
        ] {
            for service in [rooms, &follower] {
                let before = service.joined_rooms(carol.nid).await.expect("read");
                assert_eq!(before.len(), usize::from(was_joined), "in memory before {membership:?}");
            }
            let (_, touches) = touched_by(&rooms.db, world.change(&carol, membership)).await;
            let joined = membership == Membership::Join;
            let told = touches.iter().any(|touch| touch == "RemoteMember");
            assert_eq!(told, joined != was_joined, "{membership:?}: {touches:?}");
            assert!(!touches.iter().any(|touch| touch == "Member"), "{membership:?}: {touches:?}");

            let expected: &[RoomNid] = if joined { &[room] } else { &[] };
            let servers: &[&str] = if joined { &["remote.test"] } else { &[] };
            for service in [rooms, &follower, &other_service(&world.server)] {
                assert_eq!(service.joined_rooms(carol.nid).await.expect("read"), expected, "{membership:?}");
                for (one, other) in [(alice, carol.nid), (carol.nid, alice)] {
                    assert_eq!(service.share_a_room(one, other).await.expect("read"), joined, "{membership:?}");
                }
                assert_eq!(service.servers_in(room).await.expect("read"), servers, "{membership:?}");
                assert_eq!(service.servers_sharing_with(alice).await.expect("read"), servers, "{membership:?}");
                assert!(service.memberships(carol.nid).await.expect("read").is_empty(), "those are of local users");
            }
            was_joined = joined;
        }
        // Alice's row, and one of each kind for carol.
        for table in ["member", "remote_member", "room_server", "server"] {
            assert_eq!(count_rows(&rooms.db, table).await, 1, "{table}");
        }
    }
}

#[tokio::test]
async fn a_server_is_in_the_room_until_the_last_of_its_users_is_out() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let dave = world.remote_user(user_id!("@dave:remote.test")).await;
        let erin = world.remote_user(user_id!("@erin:other.test")).await;
        for (user, membership, expected) in [
            (&carol, Membership::Join, vec!["remote.test"]),
            (&dave, Membership::Join, vec!["remote.test"]),
            (&erin, Membership::Join, vec!["other.test", "remote.test"]),
            (&carol, Membership::Leave, vec!["other.test", "remote.test"]),
            (&dave, Membership::Ban, vec!["other.test"]),
            (&carol, Membership::Join, vec!["other.test", "remote.test"]),
        ] {
            world.change(user, membership).await;
            assert_eq!(world.servers().await, expected, "{}: {membership:?}", user.user_id);
            let changed_now = format!("room_server WHERE changed_pos = {}", world.last_pos().await.0);
            assert_eq!(count_rows(&world.rooms().db, &changed_now).await, 1);
            // The next one counts on from what is stored.
            world.evict().await;
        }

        // State resolution takes two memberships back and brings another, with an event of another kind.
        let mut changes = Vec::new();
        for user in [&carol, &erin] {
            let key = world.rooms().db.state_key("m.room.member", user.user_id.as_str()).await.expect("a key");
            changes.push(KeyChange { key, to: None, member: Some(ChangedMember::Remote(Arc::clone(user))) });
        }
        let key = world.rooms().db.state_key("m.room.member", dave.user_id.as_str()).await.expect("a key");
        let resolved = |built: &mut Built| {
            let now = CurrentEvent { nid: built.nid, pdu: Arc::clone(built.pdu()), membership: Some(Membership::Join) };
            changes.push(KeyChange { key, to: Some(now), member: Some(ChangedMember::Remote(Arc::clone(&dave))) });
            Outcome { changes, ..Outcome::of_local(built, None, None, None) }
        };
        world.accept(message("resolved"), resolved).await;
        assert_eq!(world.servers().await, ["remote.test"]);
        for (user, rooms) in [(&carol, 0), (&dave, 1), (&erin, 0)] {
            assert_eq!(world.rooms().joined_rooms(user.nid).await.expect("read").len(), rooms, "{}", user.user_id);
        }
    }
}

#[tokio::test]
async fn a_join_that_is_not_stored_counts_for_nothing() {
    let world = World::new().await;
    let carol = world.remote_user(user_id!("@carol:remote.test")).await;
    let (draft, outcome) = World::as_member(&carol, Membership::Join);
    let mut writer = world.enter().await;
    let mut built = world.received(&writer, &carol, draft).await;
    let outcome = outcome(&mut built);
    writer.accept(built, outcome).await.expect("an extremity is left");
    // An earlier write of the room fails meanwhile.
    drop(writer.room.lineage.until_finished());
    writer.commit(None).expect("queued").wait().await.expect_err("its chain is broken");
    assert!(world.servers().await.is_empty());
    assert!(world.rooms().joined_rooms(carol.nid).await.expect("read").is_empty());

    world.change(&carol, Membership::Join).await;
    assert_eq!(world.servers().await, ["remote.test"]);
    world.change(&carol, Membership::Leave).await;
    assert!(world.servers().await.is_empty(), "one user had joined");
}

#[tokio::test]
async fn members_of_other_servers_add_no_row_to_the_writes_of_local_users() {
    let world = World::new().await;
    let (rooms, bob) = (world.rooms(), world.server.register("bob").await);
    // Now the key of his membership is stored.
    rooms.join(&bob, &world.room_id, None).await.expect("joined");
    let counters = rooms.db.counters();
    let mut costs = Vec::new();
    for user_id in [user_id!("@carol:remote.test"), user_id!("@dave:remote.test")] {
        let before = counters.rows_written();
        world.send(message("hello")).await;
        let after_message = counters.rows_written();
        rooms.leave(&bob, &world.room_id, None).await.expect("left");
        rooms.join(&bob, &world.room_id, None).await.expect("joined");
        costs.push((after_message - before, counters.rows_written() - after_message));
        let user = world.remote_user(user_id).await;
        world.change(&user, Membership::Join).await;
    }
    assert_eq!(costs[0], costs[1]);
    for (table, rows) in [("server", 1), ("room_server", 1), ("remote_member", 2)] {
        assert_eq!(count_rows(&rooms.db, table).await, rows, "{table}");
    }
}

#[tokio::test]
async fn clients_are_told_of_device_lists_of_other_servers_while_they_share_a_room() {
    let mut world = World::new().await;
    let carol = world.remote_user(user_id!("@carol:remote.test")).await;
    let second = world.rooms().create(&world.alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("made");
    let (nobody, only_carol) = (Vec::<String>::new(), vec![carol.user_id.to_string()]);
    let mut since = None;
    world.device_lists(&mut since).await;

    world.change(&carol, Membership::Join).await;
    assert_eq!(world.device_lists(&mut since).await, [only_carol.clone(), nobody.clone()]);
    let first = std::mem::replace(&mut world.room_id, second);
    world.change(&carol, Membership::Join).await;
    world.device_lists(&mut since).await;

    // Her server tells of a new device.
    let committer = world.rooms().db.committer();
    let before = committer.published();
    let told = committer.submit::<Error>(1, |pos| {
        let row = DeviceChangeColumns { user_nid: carol.nid, pos }.row();
        Ok(Write::new(vec![row]).touching(Touch::DeviceList { user: carol.nid }))
    });
    told.expect("queued").wait().await.expect("stored");
    let (app, upto) = (&world.server.app, committer.published());
    let changed = app.keys.device_lists_changed(&app.rooms, world.alice.user.nid, before, upto).await.expect("read");
    assert_eq!(changed, std::slice::from_ref(&carol.user_id));
    assert_eq!(world.device_lists(&mut since).await, [only_carol.clone(), nobody.clone()]);

    world.change(&carol, Membership::Leave).await;
    assert_eq!(world.device_lists(&mut since).await, [nobody.clone(), nobody.clone()], "they share the first room");
    world.room_id = first;
    world.change(&carol, Membership::Leave).await;
    assert_eq!(world.device_lists(&mut since).await, [nobody, only_carol]);
}
