//! Members of other servers at a process that follows: after each commit its memory answers as that of a process that has
//! just started.

use std::time::Duration;

use proptest::prelude::*;
use ruma::OwnedUserId;

use super::*;
use crate::{
    app::App,
    room::tests::shared_server,
    store::{ServerNid, UserNid},
};

/// Three users of one server, which is in a room until the last of them is out, and one of another server.
const USERS: [&str; 4] = ["@carol:remote.test", "@dave:remote.test", "@erin:remote.test", "@frank:other.test"];

const ROOMS: usize = 2;

/// Joins and departures are as frequent as all others, which change nothing here.
const MEMBERSHIPS: [Membership; 7] = [
    Membership::Join,
    Membership::Join,
    Membership::Join,
    Membership::Leave,
    Membership::Leave,
    Membership::Invite,
    Membership::Ban,
];

/// Time limit for a follower to apply a commit that is in the database.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
enum Change {
    /// A user of another server sends a member event.
    Member { user: usize, membership: Membership },
    /// State resolution decides for each user whether they are joined.
    Resolved(Vec<bool>),
    /// The server of a user tells of a new device.
    Device { user: usize },
    /// A local user joins the room or leaves it.
    Local,
}

#[derive(Debug, Clone)]
struct Step {
    room: usize,
    change: Change,
    /// False if the follower hears nothing of the commit, and finds no entry of it later.
    is_told: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let member = (0..USERS.len(), 0..MEMBERSHIPS.len());
    let change = prop_oneof![
        6 => member.prop_map(|(user, index)| Change::Member { user, membership: MEMBERSHIPS[index] }),
        2 => prop::collection::vec(any::<bool>(), USERS.len()).prop_map(Change::Resolved),
        1 => (0..USERS.len()).prop_map(|user| Change::Device { user }),
        2 => Just(Change::Local),
    ];
    let step = (0..ROOMS, change, prop::bool::weighted(0.8));
    step.prop_map(|(room, change, is_told)| Step { room, change, is_told })
}

/// Everything that a process knows about the users of other servers.
#[derive(Debug, Default, PartialEq)]
struct Known {
    /// The short ids of each user and of their server, if the user is stored.
    words: Vec<Option<(UserNid, Option<ServerNid>)>>,
    /// The rooms of each stored user.
    rooms: Vec<Vec<RoomNid>>,
    /// For each stored user and each local one, whether they share a room.
    sharing: Vec<bool>,
    /// The servers in each room, and those that share a room with each local user.
    servers: Vec<Vec<OwnedServerName>>,
    /// The users whose device lists each local user must fetch again.
    changed: Vec<Vec<OwnedUserId>>,
}

impl Known {
    async fn at(app: &App, locals: &[UserNid], rooms: &[RoomNid], began: Position) -> Self {
        let service = &app.rooms;
        let mut known = Self::default();
        for user_id in USERS {
            let user_id = UserId::parse(user_id).expect("a user ID");
            let user = app.db.find_user(&user_id).await.expect("read");
            known.words.push(user.as_ref().map(|user| (user.nid, user.server.as_ref().map(|server| server.nid))));
            let Some(user) = user else { continue };
            let mut joined = service.joined_rooms(user.nid).await.expect("read");
            joined.sort_unstable_by_key(|room| room.0);
            known.rooms.push(joined);
            for local in locals {
                let [there, back] = [(*local, user.nid), (user.nid, *local)];
                let shares = service.share_a_room(there.0, there.1).await.expect("read");
                assert_eq!(service.share_a_room(back.0, back.1).await.expect("read"), shares, "{}", user.user_id);
                known.sharing.push(shares);
            }
        }
        for room in rooms {
            known.servers.push(service.servers_in(*room).await.expect("read"));
        }
        let upto = app.db.committer().published();
        for local in locals {
            known.servers.push(service.servers_sharing_with(*local).await.expect("read"));
            let mut changed = app.keys.device_lists_changed(service, *local, began, upto).await.expect("read");
            changed.sort_unstable();
            known.changed.push(changed);
        }
        known
    }
}

/// The process that leads, with its rooms and users.
struct Scene {
    world: World,
    rooms: Vec<OwnedRoomId>,
    bob: Arc<LocalDevice>,
    users: Vec<Arc<User>>,
    /// For each room and each user, whether the state has a member event.
    has_member: [[bool; USERS.len()]; ROOMS],
}

impl Scene {
    /// `None` where PostgreSQL is not installed.
    async fn new() -> Option<Self> {
        let world = World::on(shared_server().await?).await;
        let mut rooms = vec![world.room_id.clone()];
        while rooms.len() < ROOMS {
            let new = new_room(RoomVersionId::V11, Preset::Public);
            rooms.push(world.rooms().create(&world.alice, new).await.expect("created"));
        }
        let bob = world.server.register("bob").await;
        let mut users = Vec::new();
        for user_id in USERS {
            users.push(world.remote_user(&UserId::parse(user_id).expect("a user ID")).await);
        }
        Some(Self { world, rooms, bob, users, has_member: Default::default() })
    }

    async fn room_nids(&self) -> Vec<RoomNid> {
        let mut nids = Vec::new();
        for room_id in &self.rooms {
            nids.push(self.world.rooms().find(room_id).await.expect("read").expect("it was created").nid);
        }
        nids
    }

    async fn act(&mut self, room: usize, change: Change) {
        let Self { world, rooms, bob, users, has_member } = self;
        world.room_id.clone_from(&rooms[room]);
        let has_member = &mut has_member[room];
        match change {
            Change::Member { user, membership } => {
                world.change(&users[user], membership).await;
                has_member[user] = true;
            }
            Change::Resolved(joins) => {
                let mut keys = Vec::new();
                for (number, (user, joins)) in users.iter().zip(joins).enumerate() {
                    // A member event that is not there cannot be taken away.
                    if joins || has_member[number] {
                        let key = world.rooms().db.state_key("m.room.member", user.user_id.as_str()).await;
                        keys.push((key.expect("a key"), Arc::clone(user), joins));
                        has_member[number] = joins;
                    }
                }
                let resolved = |built: &mut Built| {
                    let (nid, membership) = (built.nid, Some(Membership::Join));
                    let now = || CurrentEvent { nid, pdu: Arc::clone(built.pdu()), membership };
                    let change = |(key, user, joins): (_, _, bool)| KeyChange {
                        key,
                        to: joins.then(now),
                        member: Some(ChangedMember::Remote(user)),
                    };
                    let changes = keys.into_iter().map(change).collect();
                    Outcome { changes, ..Outcome::of_local(built, None, None, None) }
                };
                world.accept(message("resolved"), resolved).await;
            }
            Change::Device { user } => {
                let user = Arc::clone(&users[user]);
                let told = world.rooms().db.committer().submit::<Error>(1, |pos| {
                    let mut write = Write::new(vec![DeviceChangeColumns { user_nid: user.nid, pos }.row()]);
                    user.write_if_new(&mut write);
                    Ok(write.touching(Touch::DeviceList { user: user.nid }))
                });
                told.expect("queued").wait().await.expect("stored");
            }
            Change::Local => {
                let service = world.rooms();
                let joined = service.membership(bob.user.nid, world.room().await.nid).await.expect("read");
                if joined == Some(Membership::Join) {
                    service.leave(bob, &rooms[room], None).await.expect("left");
                } else {
                    service.join(bob, &rooms[room], None).await.expect("joined");
                }
            }
        }
    }
}

/// Compares the follower with a new process after each step that it is told of.
async fn play(steps: Vec<Step>) {
    let Some(mut scene) = Scene::new().await else { return };
    let rooms = scene.room_nids().await;
    let locals = [scene.world.alice.user.nid, scene.bob.user.nid];
    let follower = scene.world.server.another().await;
    let began = follower.db.committer().published();
    Known::at(&follower, &locals, &rooms, began).await;
    let mut has_missed = false;
    for Step { room, change, is_told } in steps {
        let text = format!("{change:?} in room {room}");
        scene.act(room, change).await;
        if !is_told {
            has_missed = true;
            continue;
        }
        let server = &scene.world.server;
        if std::mem::take(&mut has_missed) {
            server.cut_log().await;
        }
        let (position, committer) = (server.app.db.committer().published(), follower.db.committer());
        committer.hint();
        let reached = tokio::time::timeout(LIMIT, committer.reached(position)).await;
        reached.expect("the follower applies what is stored");
        let new = server.another().await;
        let [found, expected] =
            [Known::at(&follower, &locals, &rooms, began).await, Known::at(&new, &locals, &rooms, began).await];
        new.db.close().await;
        assert_eq!(found, expected, "after {text}");
    }
    follower.db.close().await;
    scene.world.server.app.db.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, max_shrink_iters: 16, ..ProptestConfig::default() })]

    #[test]
    fn memory_that_follows_knows_the_servers_in_rooms_like_new_memory(
        steps in prop::collection::vec(step(), 1..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(play(steps));
    }
}
