//! Events with outcomes made by hand: what each kind writes, and what it does to the end of the room.

use ruma::{OwnedRoomId, RoomVersionId, ServerName, ServerSigningKeyId, UserId};
use sabha_federation::{
    EventDraft, EventPosition, PublicKey, ServerSigner, build_and_sign,
    received::Ed25519,
    standing::{Flags, Standing, StateAt},
    state_log::Membership,
};
use serde_json::{json, value::RawValue};

use super::{outcome::*, *};
use crate::{
    account::LocalDevice,
    room::{
        event::StoredEvent,
        read::pages::{Page, PageLimit, PageRange, PageSource},
        tests::{Server, message, new_room, server, topic},
        write::create::Preset,
    },
    store::{EventNid, SideNid, TimelinePlace, events::events, tests::count_rows, vocabulary::User},
};

mod jumps;
mod nul;
mod received;
mod remote;
mod restated;

/// The tables of a room's events, in the order of [`World::counts`].
const TABLES: [&str; 6] = ["event", "event_json", "timeline", "state_log", "member", "relation"];

struct World {
    server: Server,
    alice: Arc<LocalDevice>,
    room_id: OwnedRoomId,
}

impl World {
    async fn new() -> Self {
        Self::on(server().await).await
    }

    async fn on(server: Server) -> Self {
        let alice = server.register("alice").await;
        let new = new_room(RoomVersionId::V11, Preset::Public);
        let room_id = server.app.rooms.create(&alice, new).await.expect("created");
        let world = Self { server, alice, room_id };
        // Now the types and the keys of these events are stored.
        world.send(message("first")).await;
        world.send(topic("first")).await;
        world
    }

    fn rooms(&self) -> &Rooms {
        &self.server.app.rooms
    }

    async fn room(&self) -> Arc<Room> {
        self.rooms().find(&self.room_id).await.expect("read").expect("it was created")
    }

    async fn last_pos(&self) -> Position {
        self.room().await.last_pos()
    }

    async fn enter(&self) -> RoomWriter<'_> {
        self.rooms().enter(&self.room().await).await.expect("entered")
    }

    async fn send(&self, draft: EventDraft) -> TimelinePlace {
        let mut writer = self.enter().await;
        writer.append(&self.alice.user, draft).await.expect("allowed");
        let committed = writer.commit(None).expect("queued");
        let place = TimelinePlace::on_line(committed.position());
        committed.wait().await.expect("committed");
        place
    }

    /// Builds an event on the head, and appends it with another outcome.
    async fn accept(&self, draft: EventDraft, outcome: impl FnOnce(&mut Built) -> Outcome) -> EventNid {
        let mut writer = self.enter().await;
        let mut built = writer.build(&self.alice.user, draft).await;
        let (nid, outcome) = (built.nid, outcome(&mut built));
        writer.accept(built, outcome).await.expect("an extremity is left");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        nid
    }

    /// The event that a user of another server sends on the head, as their server made and signed it.
    async fn received(&self, writer: &RoomWriter<'_>, sender: &Arc<User>, draft: EventDraft) -> Built {
        let (room, db) = (&writer.room, &self.rooms().db);
        let event_type = db.event_type(&draft.event_type).await.expect("a type");
        let key = match &draft.state_key {
            Some(state_key) => Some(db.state_key(&draft.event_type, state_key).await.expect("a key")),
            None => None,
        };
        let signer = ServerSigner::generate(sender.user_id.server_name().to_owned());
        let named: Vec<_> = writer.extremities().iter().collect();
        let prev_events: Vec<_> = named.iter().map(|extremity| extremity.event_id.clone()).collect();
        let position = EventPosition {
            room_id: Some(&room.room_id),
            sender: &sender.user_id,
            prev_events: &prev_events,
            auth_events: &[],
            depth: 7,
            origin_server_ts: writer.now_ms(),
        };
        let sent = build_and_sign(&room.rules, &signer, draft, position).expect("it can be built");
        let json = RawValue::from_string(sent.json.to_string()).expect("JSON");
        let read =
            sabha_federation::received::read(&room.rules, &room.room_id, &json).expect("it has the form of an event");
        let key_of = |_: &ServerName, _: &ServerSigningKeyId| Some(PublicKey::of(&signer));
        let verified = read.verify(&Ed25519, &key_of).expect("it is signed");
        let nid = db.committer().ids().event().expect("a number");
        let edges =
            Edges { prev: named.iter().map(|extremity| extremity.nid).collect(), auth: Vec::new(), auth_depth: 1 };
        Built::received(verified, Names { nid, event_type, sender: Arc::clone(sender), key }, edges, None)
    }

    /// Takes an event of a user of another server.
    async fn receive(
        &self,
        sender: &Arc<User>,
        draft: EventDraft,
        outcome: impl FnOnce(&mut Built) -> Outcome,
    ) -> EventNid {
        let mut writer = self.enter().await;
        let mut built = self.received(&writer, sender, draft).await;
        let (nid, outcome) = (built.nid, outcome(&mut built));
        writer.accept(built, outcome).await.expect("an extremity is left");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        nid
    }

    async fn remote_user(&self, user_id: &UserId) -> Arc<User> {
        self.rooms().db.user(user_id, false).await.expect("a user")
    }

    /// The event of this number, as readers see it.
    async fn event(&self, nid: EventNid) -> Arc<StoredEvent> {
        self.rooms().events.get(&*self.room().await, nid).await.expect("it is stored")
    }

    async fn standing(&self, nid: EventNid) -> Standing {
        let mut reader = self.rooms().db.read().await.expect("a reader");
        let rows = events(&mut reader.conn(), &[nid]).await.expect("read");
        rows.first().expect("it is stored").standing()
    }

    async fn counts(&self) -> [i64; 6] {
        let mut counts = [0; 6];
        for (count, table) in counts.iter_mut().zip(TABLES) {
            *count = count_rows(&self.rooms().db, table).await;
        }
        counts
    }

    async fn extremities(&self) -> Vec<EventNid> {
        self.enter().await.extremities().iter().map(|extremity| extremity.nid).collect()
    }

    /// Evicts the room, so that it is loaded again.
    async fn evict(&self) {
        let nid = self.room().await.nid;
        // The first call clears the marks of use, and the second one evicts.
        self.rooms().forget_idle();
        self.rooms().forget_idle();
        assert!(self.rooms().in_memory(nid).is_none(), "nobody uses the room");
    }
}

impl Built {
    /// The event as it is received once more.
    fn copy(&self) -> Self {
        let key = self.key.clone();
        let (event_type, sender) = (Arc::clone(&self.event_type), Arc::clone(&self.sender));
        let names = Names { nid: self.nid, event_type, sender, key };
        let edges = Edges { prev: self.prev.clone(), auth: self.auth.clone(), auth_depth: self.auth_depth };
        Self::ours(Arc::clone(self.pdu()), names, edges, None)
    }
}

impl RoomWriter<'_> {
    /// Builds an event as [`Self::append`] does, and takes it back out.
    async fn build(&mut self, sender: &Arc<User>, draft: EventDraft) -> Built {
        self.append(sender, draft).await.expect("allowed");
        self.extremities = None;
        self.pending.pop().expect("it was appended").built
    }
}

/// One kind of event, and everything that it writes.
struct Kind {
    name: &'static str,
    draft: EventDraft,
    outcome: Box<dyn FnOnce(&Built) -> Outcome>,
    flags: Flags,
    /// `None`: it gets no place.
    sub: Option<i64>,
    /// The new rows of [`TABLES`].
    rows: [i64; 6],
    writes_head: bool,
}

impl Kind {
    fn ours(name: &'static str, draft: EventDraft, rows: [i64; 6]) -> Self {
        let outcome = Box::new(|built: &Built| Outcome::of_local(built, None, None, None));
        Self { name, draft, outcome, flags: Flags::OURS | Flags::TIP, sub: Some(0), rows, writes_head: true }
    }

    fn stored(name: &'static str, draft: EventDraft, flags: Flags, placing: Placing, before: StateBefore) -> Self {
        let (sub, rows) = match placing {
            Placing::Gap(place) => (Some(place.sub), [1, 1, 1, 0, 0, 0]),
            _ => (None, [1, 1, 0, 0, 0, 0]),
        };
        let outcome = Box::new(move |_: &Built| Outcome::only_stored(flags, placing, before));
        Self { name, draft, outcome, flags, sub, rows, writes_head: false }
    }
}

#[tokio::test]
async fn each_kind_of_event_writes_its_rows_and_no_others() {
    let world = World::new().await;
    let gap = Placing::Gap(TimelinePlace { sub: -2, ..world.send(message("after the gap")).await });
    let side = StateBefore::Known(StateAt { pos: Position(3), side: Some(SideNid(9)) });
    let (nowhere, unknown) = (Placing::Nowhere, StateBefore::Known(StateAt::EMPTY));
    let kinds = [
        Kind::ours("a message", message("hello"), [1, 1, 1, 0, 0, 0]),
        Kind::ours("a state event", topic("tea"), [1, 1, 1, 1, 0, 0]),
        Kind::stored("history", message("long ago"), Flags::NONE, gap, side),
        Kind::stored("an outlier", topic("elsewhere"), Flags::OUTLIER, nowhere, unknown),
        Kind::stored("a rejected event", topic("never"), Flags::REJECTED, nowhere, side),
        Kind::stored("a soft-failed event", topic("late"), Flags::SOFT_FAILED, nowhere, StateBefore::Current),
    ];
    for Kind { name, draft, outcome, flags, sub, rows, writes_head } in kinds {
        let (before, written) = (world.counts().await, world.rooms().db.counters().rows_written());
        let (extremities, end) = (world.extremities().await, world.last_pos().await);
        let nid = world.accept(draft, |built| outcome(built)).await;
        let now = world.counts().await;
        let new: Vec<i64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!(new, rows, "{name}: {TABLES:?}");
        let in_all = world.rooms().db.counters().rows_written() - written;
        assert_eq!(in_all as i64, rows.iter().sum::<i64>() + i64::from(writes_head), "{name}: all rows");
        let standing = world.standing(nid).await;
        assert_eq!((standing.flags, standing.place.map(|place| place.sub)), (flags, sub), "{name}");
        let in_cache = world.rooms().events.get(&*world.room().await, nid).await.expect("cached");
        assert_eq!(in_cache.standing, standing, "{name}: memory is as the database");
        if writes_head {
            assert_eq!(world.extremities().await, [nid], "{name}");
            assert!(world.last_pos().await > end, "{name}");
        } else {
            assert_eq!((world.extremities().await, world.last_pos().await), (extremities, end), "{name}");
        }
    }
}

#[tokio::test]
async fn clients_read_the_line_and_history_and_no_other_events() {
    let world = World::new().await;
    let first = world.send(message("before the gap")).await;
    let last = world.send(message("after the gap")).await;
    let mut history = Vec::new();
    for sub in [-1, -2] {
        let place = TimelinePlace { sub, ..last };
        let outcome = |_: &mut Built| Outcome::only_stored(Flags::NONE, Placing::Gap(place), StateBefore::Current);
        // Texts that differ: events of one millisecond on the same extremities would have one ID.
        history.push(world.accept(message(&format!("in the gap, {sub}")), outcome).await);
    }
    let mut unplaced = Vec::new();
    for flags in [Flags::OUTLIER, Flags::REJECTED, Flags::SOFT_FAILED] {
        let outcome = |_: &mut Built| Outcome::only_stored(flags, Placing::Nowhere, StateBefore::Current);
        unplaced.push(world.accept(message(&format!("nowhere, {flags:?}")), outcome).await);
    }
    // Now nothing is in memory, and sync reads the line from the database.
    world.evict().await;
    let rooms = world.rooms();
    let data = &world.server.app.account_data;
    let viewer = rooms.viewer(data, &world.alice, &world.room_id).await.expect("it is her room");
    let room = &viewer.room;
    let subs = |page: Page| page.events.iter().map(|(place, _)| place.sub).collect::<Vec<_>>();
    let read = async |range| {
        let limit = PageLimit::new(&world.server.app.config.limits, 10);
        subs(rooms.page(&viewer, PageSource::Timeline(None), range, limit, |_| true).await.expect("read"))
    };
    let back = |from| read(PageRange::Back { from, until: first.just_before() });
    assert_eq!(back(last).await, [0, -1, -2, 0]);
    assert_eq!(back(last.just_before()).await, [-1, -2, 0], "a token before the event shows the history in the gap");
    assert_eq!(read(PageRange::Forward { after: first, upto: last }).await, [-2, -1, 0]);
    let (line, more) = rooms.timeline(room, Position(first.pos.0 - 1), room.last_pos(), 10).await.expect("read");
    assert_eq!((line.iter().map(|(pos, _)| *pos).collect::<Vec<_>>(), more), (vec![first.pos, last.pos], false));
    for nid in history {
        let event = rooms.events.get(room, nid).await.expect("stored");
        rooms.event(&viewer, event.event_id()).await.expect("she may read it");
        let before = Position(last.pos.0 - 1);
        assert_eq!(event.read_at(), Some(before), "a receipt for it leaves the event after the gap unread");
    }
    for nid in unplaced {
        let event = rooms.events.get(room, nid).await.expect("stored");
        assert!(rooms.event(&viewer, event.event_id()).await.is_err());
        assert!(rooms.find_in_timeline(room, event.event_id()).await.expect("read").is_none());
    }
}

#[tokio::test]
async fn an_event_removes_the_forward_extremities_that_it_names_and_leaves_the_others() {
    let world = World::new().await;
    let [old] = world.extremities().await[..] else { panic!("the room has one end") };
    let beside = |built: &mut Built| {
        built.prev.clear();
        Outcome::of_local(built, None, None, None)
    };
    let branch = world.accept(message("on a branch"), beside).await;
    assert_eq!(world.extremities().await, [old, branch]);
    world.evict().await;
    assert_eq!(world.extremities().await, [old, branch], "as stored");

    let on_branch = |built: &mut Built| {
        built.prev = vec![branch];
        Outcome::of_local(built, None, None, None)
    };
    let next = world.accept(message("on the branch again"), on_branch).await;
    assert_eq!(world.extremities().await, [old, next]);
    for nid in [branch, next] {
        assert!(!world.standing(nid).await.flags.contains(Flags::TIP), "another extremity is beside it");
    }
    // An event that failed may remove what it names, too.
    let late = |_: &mut Built| Outcome {
        covers: vec![old],
        ..Outcome::only_stored(Flags::SOFT_FAILED, Placing::Nowhere, StateBefore::Current)
    };
    let end = world.last_pos().await;
    world.accept(message("soft-failed"), late).await;
    assert_eq!((world.extremities().await, world.last_pos().await), (vec![next], end));
    world.evict().await;
    assert_eq!(world.extremities().await, [next]);
}

#[tokio::test]
async fn a_local_event_names_all_forward_extremities_and_joins_them() {
    let world = World::new().await;
    let beside = |built: &mut Built| {
        built.prev.clear();
        Outcome::of_local(built, None, None, None)
    };
    world.accept(message("on a branch"), beside).await;
    let tips = world.extremities().await;
    assert_eq!(tips.len(), 2);
    let mut writer = world.enter().await;
    writer.append(&world.alice.user, message("both")).await.expect("allowed");
    writer.append(&world.alice.user, message("one")).await.expect("allowed");
    let [first, second] = &writer.pending[..] else { panic!("two were appended") };
    assert_eq!((&first.built.prev, &second.built.prev), (&tips, &vec![first.built.nid]));
    assert!([first, second].iter().all(|pending| pending.outcome.flags.contains(Flags::TIP)));
    let depths = [first, second].map(|pending| pending.built.depth());
    assert!(depths[0] > writer.head.depth && depths[1] > depths[0]);
    let last = second.built.nid;
    writer.commit(None).expect("queued").wait().await.expect("committed");
    assert_eq!(world.extremities().await, [last]);
}

#[tokio::test]
async fn a_room_never_loses_its_last_forward_extremity() {
    let world = World::new().await;
    let tips = world.extremities().await;
    let mut writer = world.enter().await;
    let built = writer.build(&world.alice.user, message("too much")).await;
    let outcome = Outcome {
        covers: tips.clone(),
        ..Outcome::only_stored(Flags::SOFT_FAILED, Placing::Nowhere, StateBefore::Current)
    };
    assert!(matches!(writer.accept(built, outcome).await, Err(Error::Damaged { .. })));
    assert!(writer.is_empty());
    drop(writer);
    assert_eq!(world.extremities().await, tips);
    world.send(message("still here")).await;
}

#[tokio::test]
async fn an_event_can_change_several_keys_and_take_a_membership_back() {
    let world = World::new().await;
    let bob = world.server.register("bob").await;
    world.rooms().join(&bob, &world.room_id, None).await.expect("joined");
    let entry =
        world.rooms().member_entry(bob.user.nid, world.room().await.nid).await.expect("read").expect("he is in it");
    assert_eq!(entry.membership, Membership::Join);
    let member_key = world.rooms().db.state_key("m.room.member", bob.user_id().as_str()).await.expect("a key");
    let member = ChangedMember::Local(LocalMember { user: Arc::clone(&bob.user), invite_state: None });
    let resolved = |built: &mut Built| {
        let mut outcome = Outcome::of_local(built, None, None, None);
        outcome.changes.push(KeyChange { key: member_key, to: None, member: Some(member) });
        outcome
    };
    let nid = world.accept(topic("without bob"), resolved).await;
    for _ in 0..2 {
        let (rooms, room) = (world.rooms(), world.room().await);
        let current = async |event_type, state_key| {
            let event = rooms.current_state_event(&room, event_type, state_key).await.expect("read");
            event.map(|event| event.nid)
        };
        assert_eq!(current("m.room.topic", "").await, Some(nid));
        assert_eq!(current("m.room.member", bob.user_id().as_str()).await, None);
        let entry = rooms.member_entry(bob.user.nid, room.nid).await.expect("read").expect("he was in it");
        assert_eq!((entry.membership, entry.event_nid), (Membership::Leave, nid));
        assert_eq!(world.enter().await.membership(bob.user_id()).await.expect("read"), None);
        let sight = rooms.sight(&room, &bob.user).await.expect("read");
        assert_eq!(sight.membership_at(room.last_pos()), Some(Membership::Leave));
        drop(room);
        // And once more, as it is stored.
        world.evict().await;
    }
}

/// Memory may lose a stored key at any time, and has a new one a moment after those who waited for it. "Absent" would then be
/// the answer to the events that are built on this one.
#[tokio::test]
async fn a_key_is_no_longer_absent_when_an_event_with_it_is_appended() {
    let world = World::new().await;
    let (room, event_type) = (world.room().await, "org.example.new");
    assert_eq!(world.rooms().find_key(&room, event_type, "").await.expect("read"), None);
    assert!(room.absent.contains(event_type, ""));
    let mut writer = world.enter().await;
    let draft = EventDraft { event_type: event_type.to_owned(), ..topic("new") };
    writer.append(&world.alice.user, draft).await.expect("allowed");
    assert!(!room.absent.contains(event_type, ""));
}
