//! Changes of profiles beside joins, leaves and other changes, in the order that matters.

use ruma::RoomVersionId;

use super::*;
use crate::{
    account::LocalDevice,
    room::{
        tests::{Server, message, new_room, server},
        write::create::Preset,
    },
    server::jobs,
    store::jobs::{Done, Job, list_jobs},
};

impl Server {
    async fn rename(&self, user: &LocalDevice, name: &str) {
        self.app.accounts.set_profile_field(user.user.nid, "displayname", Some(name.into())).await.expect("set");
    }

    async fn public_room(&self, creator: &LocalDevice) -> Arc<Room> {
        let new = new_room(RoomVersionId::V11, Preset::Public);
        let room_id = self.app.rooms.create(creator, new).await.expect("created");
        self.app.rooms.find(&room_id).await.expect("read").expect("it was created")
    }

    async fn jobs(&self) -> Vec<Job> {
        let mut reader = self.app.db.read().await.expect("a reader");
        list_jobs(&mut reader.conn(), 100).await.expect("read")
    }

    /// The user's membership, and their name if they are in the room.
    async fn shown(&self, room: &Arc<Room>, user: &LocalDevice) -> (Option<Membership>, Option<String>) {
        let writer = self.app.rooms.enter(room).await.expect("entered");
        let member = writer.state("m.room.member", user.user_id().as_str()).await.expect("read");
        let membership = writer.membership(user.user_id()).await.expect("read");
        (membership, member.and_then(|member| MemberProfile::shown_in(&member).displayname))
    }
}

#[tokio::test]
async fn who_is_leaving_is_not_joined_again_by_a_new_name() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let room = server.public_room(&alice).await;
    rooms.join(&bob, &room.room_id, None).await.expect("joined");
    server.rename(&bob, "Bob").await;
    let mut writer = rooms.enter(&room).await.expect("entered");
    let draft = member_draft(bob.user_id(), MembershipState::Leave, &MemberProfile::default(), &[]);
    writer.append(&bob.user, draft).await.expect("allowed");
    let leaves = writer.commit(None).expect("queued");
    rooms.show_profile(&bob.user).await.expect("shown");
    leaves.wait().await.expect("committed");
    assert_eq!(server.shown(&room, &bob).await, (Some(Membership::Leave), None));
}

#[tokio::test]
async fn a_join_that_read_the_old_name_gets_the_new_one() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let room = server.public_room(&alice).await;
    let mut writer = rooms.enter(&room).await.expect("entered");
    let arrival = rooms.arrivals.register(bob.user.nid, &room);
    let old = rooms.profile_of(bob.user.nid).await.expect("read");
    server.rename(&bob, "Bob").await;
    let join = async {
        writer.append(&bob.user, member_draft(bob.user_id(), MembershipState::Join, &old, &[])).await.expect("allowed");
        rooms.finish(writer, None).await.expect("committed");
        drop(arrival);
    };
    // The change looks for rooms before the join is committed, and waits for its turn there.
    let (shown, ()) = tokio::join!(rooms.show_profile(&bob.user), join);
    shown.expect("shown");
    assert_eq!(server.shown(&room, &bob).await, (Some(Membership::Join), Some("Bob".to_owned())));
    assert!(lock(&rooms.arrivals.0).is_empty(), "nobody is arriving any more");
}

#[tokio::test]
async fn a_room_that_is_not_created_after_all_keeps_no_profile_waiting() {
    let server = server().await;
    let alice = server.register("alice").await;
    let rooms = &server.app.rooms;
    let mut new = new_room(RoomVersionId::V11, Preset::Public);
    // Nobody may send anything after these.
    new.power_level_override.insert("state_default".to_owned(), 200.into());
    rooms.create(&alice, new).await.expect_err("it has a name");
    assert!(lock(&rooms.arrivals.0).is_empty());
    rooms.show_profile(&alice.user).await.expect("shown");
}

#[tokio::test]
async fn many_rooms_share_a_few_commits_and_those_that_show_the_name_already_cost_none() {
    const ROOMS: u64 = ROOMS_AT_ONCE as u64 + 50;
    let server = server().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for _ in 0..ROOMS {
        made.push(server.public_room(&alice).await);
    }
    let rooms = &server.app.rooms;
    server.rename(&alice, "Alice").await;
    let counters = server.app.db.counters();
    let statements = counters.statements();
    rooms.show_profile(&alice.user).await.expect("shown");
    let statements = counters.statements() - statements;
    assert!(statements < ROOMS, "{statements} statements for {ROOMS} rooms");
    for room in &made {
        assert_eq!(server.shown(room, &alice).await.1.as_deref(), Some("Alice"));
    }
    let rows = counters.rows_written();
    rooms.show_profile(&alice.user).await.expect("shown");
    assert_eq!(counters.rows_written(), rows);
}

#[tokio::test]
async fn the_rooms_used_lately_come_first() {
    let server = server().await;
    let alice = server.register("alice").await;
    let (first, second) = (server.public_room(&alice).await, server.public_room(&alice).await);
    let rooms = &server.app.rooms;
    let sorted = || {
        let mut sorted = [first.nid, second.nid];
        rooms.sort_lately_used_first(&mut sorted);
        sorted
    };
    assert_eq!(sorted(), [second.nid, first.nid]);
    rooms.send(&alice, &first.room_id, message("hello"), None).await.expect("sent");
    assert_eq!(sorted(), [first.nid, second.nid]);
}

#[tokio::test]
async fn more_jobs_than_run_side_by_side_are_all_done() {
    let server = server().await;
    let mut places = Vec::new();
    for number in 0..10 {
        let user = server.register(&format!("user{number}")).await;
        let room = server.public_room(&user).await;
        server.rename(&user, "New").await;
        places.push((user, room));
    }
    // Only now does the runner start: this is how a start finds the jobs that the last run left.
    let (app, cursor) = (server.app.clone(), jobs::cursor(&server.app));
    let worker = tokio::spawn(async move { jobs::run(&app, cursor).await });
    server.app.jobs.settled().await;
    for (user, room) in &places {
        assert_eq!(server.shown(room, user).await.1.as_deref(), Some("New"));
    }
    assert!(server.jobs().await.is_empty());
    server.app.stopping.cancel();
    worker.await.expect("it ends with the server");
}

#[tokio::test]
async fn a_job_that_is_asked_for_again_while_it_runs_is_not_taken_for_done() {
    let server = server().await;
    let alice = server.register("alice").await;
    server.rename(&alice, "First").await;
    let begun = server.jobs().await;
    server.rename(&alice, "Second").await;
    server.app.db.committer().transact(Done(begun[0])).await.expect("committed");
    let left = server.jobs().await;
    assert_eq!((left.len(), left[0].task), (1, begun[0].task));
    assert!(left[0].pos > begun[0].pos);
    server.app.db.committer().transact(Done(left[0])).await.expect("committed");
    assert!(server.jobs().await.is_empty());
}

#[tokio::test]
async fn a_user_who_is_joining_leaves_with_the_account() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = &server.app.rooms;
    let (joined, joining) = (server.public_room(&alice).await, server.public_room(&alice).await);
    rooms.join(&bob, &joined.room_id, None).await.expect("joined");
    let mut writer = rooms.enter(&joining).await.expect("entered");
    let arrival = rooms.arrivals.register(bob.user.nid, &joining);
    let join = async {
        let draft = member_draft(bob.user_id(), MembershipState::Join, &MemberProfile::default(), &[]);
        writer.append(&bob.user, draft).await.expect("allowed");
        rooms.finish(writer, None).await.expect("committed");
        drop(arrival);
    };
    let (left, ()) = tokio::join!(rooms.leave_all(&bob.user), join);
    left.expect("left");
    for room in [&joined, &joining] {
        assert_eq!(server.shown(room, &bob).await.0, Some(Membership::Leave));
    }
}
