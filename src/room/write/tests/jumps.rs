//! Jumps: what follows from a whole state that replaces the room's state, in memory and after a reload.

use ruma::user_id;
use sabha_federation::{held::Held, state_log::StateEntry};

use super::{jump::*, *};
use crate::{
    room::{listing::Listing, tests::servers_on_both_engines},
    store::{KeyNid, RoomNid, tests::touched_by},
};

/// The parts of a room that follow a jump.
#[derive(Debug, PartialEq)]
struct Followed {
    state: Vec<(KeyNid, StateEntry)>,
    jumps: Vec<Position>,
    counts: [usize; 2],
    heroes: Vec<EventNid>,
    servers: Vec<String>,
    listing: Vec<Listing>,
    /// The rooms of the users of other servers.
    rooms: Vec<Vec<RoomNid>>,
    bob: (Membership, EventNid),
}

struct Scene {
    world: World,
    bob: Arc<LocalDevice>,
    carol: Arc<User>,
    dave: Arc<User>,
}

impl Scene {
    /// A room with Bob, who is local, and Carol, who is not.
    async fn on(server: Server) -> Self {
        let world = World::on(server).await;
        let bob = world.server.register("bob").await;
        world.rooms().join(&bob, &world.room_id, None).await.expect("joined");
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let dave = world.remote_user(user_id!("@dave:other.test")).await;
        world.change(&carol, Membership::Join).await;
        Self { world, bob, carol, dave }
    }

    async fn key(&self, event_type: &str, state_key: &str) -> KeyNid {
        self.world.rooms().db.state_key(event_type, state_key).await.expect("a key").nid
    }

    /// A state without Bob, Carol and the room's name, with Dave and another topic. Its new events are stored as outliers.
    async fn other_state(&self) -> (JumpTo, [EventNid; 2]) {
        let world = &self.world;
        let outlier =
            |_: &mut Built| Outcome::only_stored(Flags::OUTLIER, Placing::Nowhere, StateBefore::Known(StateAt::EMPTY));
        let (draft, _) = World::as_member(&self.dave, Membership::Join);
        let join = world.receive(&self.dave, draft, outlier).await;
        let topic = world.receive(&self.dave, topic("of another server"), outlier).await;
        let members = [&*self.bob.user, &*self.carol, &*self.dave];
        let [bob, carol, dave] = members.map(|user| self.key("m.room.member", user.user_id.as_str()));
        let (bob, carol, dave) = (bob.await, carol.await, dave.await);
        let (name, topic_key) = (self.key("m.room.name", "").await, self.key("m.room.topic", "").await);
        let room = world.room().await;
        let kept = |(key, _): &(KeyNid, Held)| ![bob, carol, name, topic_key].contains(key);
        let mut entries: Vec<(KeyNid, Held)> = Vec::new();
        entries.push((topic_key, Held { event_nid: topic, membership: None }));
        entries.push((dave, Held { event_nid: join, membership: Some(Membership::Join) }));
        entries.extend(room.view().state.iter().map(|(key, entry)| (key, entry.into())).filter(kept));
        let local = LocalMember { user: Arc::clone(&self.bob.user), invite_state: None };
        let members = vec![
            (bob, ChangedMember::Local(local)),
            (carol, ChangedMember::Remote(Arc::clone(&self.carol))),
            (dave, ChangedMember::Remote(Arc::clone(&self.dave))),
        ];
        (JumpTo { entries, members }, [join, topic])
    }

    async fn followed(&self) -> Followed {
        let (world, room) = (&self.world, self.world.room().await);
        let mut remote = Vec::new();
        for user in [&self.carol, &self.dave] {
            remote.push(world.rooms().joined_rooms(user.nid).await.expect("read"));
        }
        let servers = world.rooms().servers_in(room.nid).await.expect("read");
        let listing = world.rooms().listings(&[room.nid]).await.expect("read");
        let bob = world.rooms().member_entry(self.bob.user.nid, room.nid).await.expect("read").expect("he was in it");
        let view = room.view();
        Followed {
            state: view.state.entries().to_vec(),
            jumps: view.jumps.clone(),
            counts: [view.state.joined(), view.state.invited()],
            heroes: view.heroes.events().to_vec(),
            servers: servers.iter().map(ToString::to_string).collect(),
            listing,
            rooms: remote,
            bob: (bob.membership, bob.event_nid),
        }
    }
}

#[tokio::test]
async fn members_servers_and_columns_follow_a_jump_in_memory_and_after_a_reload() {
    for server in servers_on_both_engines().await {
        let scene = Scene::on(server).await;
        let (world, room) = (&scene.world, scene.world.room().await.nid);
        let (to, [join, _]) = scene.other_state().await;
        let before = scene.followed().await;
        let log = world.counts().await[3];
        let mut writer = world.enter().await;
        writer.jump(to).await.expect("its events are stored");
        let (at, mut touches) = touched_by(&world.rooms().db, async {
            writer.commit(None).expect("queued").wait().await.expect("committed")
        })
        .await;
        touches.sort();
        assert_eq!(touches, ["Jump", "Member", "RemoteMember", "RemoteMember"]);
        assert_eq!(world.counts().await[3], log, "no row of the log");
        assert_eq!(world.last_pos().await, at, "the state has changed for readers");

        let now = scene.followed().await;
        assert_eq!((now.jumps.as_slice(), now.counts), (&[at][..], [2, 0]));
        assert_eq!(
            (before.servers, &now.servers[..]),
            (vec!["remote.test".to_owned()], &["other.test".to_owned()][..])
        );
        assert_eq!(now.rooms, [vec![], vec![room]]);
        assert_eq!(now.bob.0, Membership::Leave);
        assert_eq!((before.bob.0, now.bob.1), (Membership::Join, before.bob.1));
        let [listing] = &now.listing[..] else { panic!("a room") };
        assert_eq!((listing.name.as_deref(), listing.topic.as_deref()), (None, Some("of another server")));
        assert_eq!((listing.joined, &listing.heroes), (2, &now.heroes));
        assert!(now.heroes.contains(&join));
        let moved = now.state.iter().filter(|(_, entry)| entry.pos == at).count();
        assert_eq!(moved, 2, "the other keys keep their positions");

        // Also once an event has changed the state after it.
        for sent in [false, true] {
            if sent {
                world.send(topic("after the jump")).await;
            }
            let now = scene.followed().await;
            world.evict().await;
            assert_eq!(scene.followed().await, now, "a fresh load is as memory was");
        }
        let checkpoint = format!("state_checkpoint WHERE pos = {} AND before IS NOT NULL", at.0);
        assert_eq!(count_rows(&world.rooms().db, &checkpoint).await, 1);
    }
}

#[tokio::test]
async fn an_event_follows_on_the_state_of_the_jump_in_its_write() {
    let scene = Scene::on(server().await).await;
    let world = &scene.world;
    let (to, _) = scene.other_state().await;
    let mut writer = world.enter().await;
    writer.jump(to).await.expect("its events are stored");
    let built = world.received(&writer, &scene.dave, topic("with the jump")).await;
    let outcome = Outcome { flags: Flags::NONE, ..Outcome::of_local(&built, None, None, None) };
    let nid = built.nid;
    writer.accept(built, outcome).await.expect("an extremity is left");
    let at = writer.commit(None).expect("queued").wait().await.expect("committed");
    assert_eq!(world.standing(nid).await.before, StateAt::in_log(Position(at.0 - 1)));
    let now = scene.followed().await;
    assert_eq!(now.jumps, [Position(at.0 - 1)]);
    world.evict().await;
    assert_eq!(scene.followed().await, now);
}

#[tokio::test]
async fn a_jump_that_is_not_stored_leaves_nothing() {
    let scene = Scene::on(server().await).await;
    let (to, _) = scene.other_state().await;
    let before = scene.followed().await;
    let mut writer = scene.world.enter().await;
    writer.jump(to).await.expect("its events are stored");
    // An earlier write of the room fails meanwhile.
    drop(writer.room.lineage.until_finished());
    writer.commit(None).expect("queued").wait().await.expect_err("its chain is broken");
    assert_eq!(scene.followed().await, before);
    scene.world.send(message("still here")).await;
}
