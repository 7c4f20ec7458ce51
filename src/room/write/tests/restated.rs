//! Events that are stated anew: their rows, memory here and elsewhere, the state and the end of the room.

use super::{restate::*, *};
use crate::{
    room::tests::{other_service, redaction, servers_on_both_engines},
    store::tests::touched_by,
};

impl World {
    async fn restate(&self, restatement: Restatement) -> Position {
        let mut writer = self.enter().await;
        writer.restate(restatement).await.expect("the events are stored");
        writer.commit(None).expect("queued").wait().await.expect("committed")
    }

    async fn restated(&self, nid: EventNid, flags: Flags, place: Option<TimelinePlace>) -> Restated {
        let before = self.standing(nid).await.before;
        Restated { nid, flags, place, before, prev: Vec::new() }
    }
}

#[tokio::test]
async fn an_event_that_is_stated_anew_shows_it_in_memory_and_when_it_is_read() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let follower = other_service(&world.server);
        let [turned, kept] = [world.send(message("turned")).await, world.send(message("kept")).await];
        let end = world.send(message("end")).await;
        let nid_at = async |place: TimelinePlace| {
            let room = world.room().await;
            let events = world.rooms().page_back(&room, place, place.just_before(), 1).await.expect("read");
            events[0].1.nid
        };
        let [turned_nid, kept_nid] = [nid_at(turned).await, nid_at(kept).await];
        let at_follower = async |nid| {
            let room = follower.find(&world.room_id).await.expect("read").expect("it is stored");
            follower.events.get(&room, nid).await.expect("stored").standing
        };
        assert_eq!(at_follower(turned_nid).await.place, Some(turned));
        let counts = world.counts().await;
        let restatement = Restatement {
            events: vec![
                world.restated(turned_nid, Flags::OURS | Flags::REJECTED, None).await,
                world.restated(kept_nid, Flags::OURS | Flags::CLAIMED, Some(kept)).await,
            ],
            rejects_anew: true,
            ..Restatement::default()
        };
        let (at, touches) = touched_by(&world.rooms().db, world.restate(restatement)).await;
        assert_eq!(touches, ["Graph", "Event", "Event"]);
        assert!(at > end.pos);
        assert_eq!(world.counts().await, counts, "no row is new");
        assert_eq!(world.last_pos().await, end.pos, "nothing is news");
        for _ in 0..2 {
            let events = [world.event(turned_nid).await, world.event(kept_nid).await];
            assert_eq!(events.each_ref().map(|event| event.pdu.rejected), [true, false]);
            assert_eq!(events.each_ref().map(|event| event.place()), [None, Some(kept)]);
            for event in events {
                assert_eq!(world.standing(event.nid).await, event.standing);
                assert_eq!(at_follower(event.nid).await, event.standing, "another process has evicted it");
            }
            let room = world.room().await;
            assert_eq!(world.enter().await.head().reject_epoch, 1);
            let recent = room.recent(Position(end.pos.0 - 1), end.pos);
            assert!(recent.is_none_or(|recent| recent.len() == 1), "the ring keeps the others");
            drop(room);
            world.evict().await;
            world.rooms().events.handle().evict_all();
        }
        world.send(message("on top")).await;
    }
}

#[tokio::test]
async fn a_client_no_longer_reads_an_event_that_has_lost_its_place() {
    let world = World::new().await;
    let first = world.send(message("first")).await;
    let turned = world.send(message("turned")).await;
    let last = world.send(message("last")).await;
    let room = world.room().await;
    let [(_, event), ..] = &room.recent(first.pos, turned.pos).expect("they are in memory")[..] else {
        panic!("it is on the line")
    };
    let nid = event.nid;
    drop(room);
    let events = vec![world.restated(nid, Flags::OURS | Flags::SOFT_FAILED, None).await];
    world.restate(Restatement { events, ..Restatement::default() }).await;
    for _ in 0..2 {
        let rooms = world.rooms();
        let viewer = rooms.viewer(&world.server.app.account_data, &world.alice, &world.room_id).await.expect("hers");
        let limit = PageLimit::new(&world.server.app.config.limits, 10);
        let range = PageRange::Back { from: last, until: first.just_before() };
        let page = rooms.page(&viewer, PageSource::Timeline(None), range, limit, |_| true).await.expect("read");
        assert_eq!(page.events.iter().map(|(place, _)| *place).collect::<Vec<_>>(), [last, first]);
        assert!(rooms.find_in_timeline(&viewer.room, &event_id_of(&world, nid).await).await.expect("read").is_none());
        drop(viewer);
        world.evict().await;
    }
}

async fn event_id_of(world: &World, nid: EventNid) -> ruma::OwnedEventId {
    world.event(nid).await.event_id().to_owned()
}

#[tokio::test]
async fn what_is_built_on_an_event_has_its_new_standing_before_the_commit() {
    let world = World::new().await;
    let place = world.send(message("claimed")).await;
    let [nid] = world.extremities().await[..] else { panic!("the room has one end") };
    let event_id = event_id_of(&world, nid).await;
    let events = vec![world.restated(nid, Flags::OURS | Flags::CLAIMED, Some(place)).await];
    let mut writer = world.enter().await;
    writer.restate(Restatement { events, ..Restatement::default() }).await.expect("the events are stored");
    let first = writer.commit(None).expect("queued");
    // The redacted form is made while the new standing is queued.
    let mut writer = world.enter().await;
    writer.append(&world.alice.user, redaction(&event_id)).await.expect("allowed");
    let second = writer.commit(None).expect("queued");
    assert!(first.wait().await.is_ok() && second.wait().await.is_ok());
    let event = world.event(nid).await;
    assert!(event.redacted_because.is_some() && event.standing.flags.contains(Flags::CLAIMED));
    assert_eq!(world.standing(nid).await, event.standing);
}

#[tokio::test]
async fn a_tip_that_is_rejected_gives_back_what_it_covers_and_takes_its_state_along() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        world.send(topic("before")).await;
        let before = world.enter().await.head().extremities.clone();
        let [old] = world.extremities().await[..] else { panic!("the room has one end") };
        let hash = world.enter().await.head().hash;
        world.send(topic("never allowed")).await;
        let [tip] = world.extremities().await[..] else { panic!("the room has one end") };

        let key = world.rooms().db.state_key("m.room.topic", "").await.expect("a key");
        let pdu = Arc::clone(&world.event(old).await.pdu);
        let to = Some(CurrentEvent { nid: old, pdu, membership: None });
        let restatement = Restatement {
            events: vec![world.restated(tip, Flags::OURS | Flags::REJECTED, None).await],
            changes: vec![KeyChange { key, to, member: None }],
            given_back: before.iter().cloned().collect(),
            gone: vec![tip],
            rejects_anew: true,
            ..Restatement::default()
        };
        let mut writer = world.enter().await;
        writer.restate(restatement).await.expect("the events are stored");
        assert_eq!(writer.head().hash, hash, "with the changes of this write");
        // A local event follows on what is left, in the same write.
        writer.append(&world.alice.user, message("on what is left")).await.expect("allowed");
        assert_eq!(writer.pending[0].built.prev, [old]);
        let last = writer.pending[0].built.nid;
        let at = writer.commit(None).expect("queued").wait().await.expect("committed");
        for _ in 0..2 {
            let room = world.room().await;
            let current = world.rooms().current_state_event(&room, "m.room.topic", "").await.expect("read");
            assert_eq!(current.map(|current| current.nid), Some(old));
            assert_eq!(world.extremities().await, [last]);
            assert_eq!(
                world.standing(last).await.before,
                StateAt::in_log(Position(at.0 - 1)),
                "the change is before it"
            );
            let [listing] = &world.rooms().listings(&[room.nid]).await.expect("read")[..] else { panic!("a room") };
            assert_eq!(listing.topic.as_deref(), Some("before"));
            drop(room);
            world.evict().await;
        }
    }
}

#[tokio::test]
async fn only_stored_events_of_the_room_are_stated_anew() {
    let world = World::new().await;
    let tips = world.extremities().await;
    let place = world.send(message("queued")).await;
    let mut writer = world.enter().await;
    writer.append(&world.alice.user, message("on its way")).await.expect("allowed");
    let on_its_way = writer.pending[0].built.nid;
    let committed = writer.commit(None).expect("queued");
    // It may be on its way to the disk still.
    let mut writer = world.enter().await;
    let restated = |nid, place| Restated {
        nid,
        flags: Flags::OURS | Flags::CLAIMED,
        place,
        before: StateAt::EMPTY,
        prev: tips.clone(),
    };
    let events = vec![restated(on_its_way, Some(TimelinePlace::on_line(committed.position())))];
    writer.restate(Restatement { events, ..Restatement::default() }).await.expect("it is stored");
    writer.commit(None).expect("queued").wait().await.expect("committed");
    assert!(world.standing(on_its_way).await.flags.contains(Flags::CLAIMED));

    let mut writer = world.enter().await;
    let events = vec![restated(EventNid(1 << 40), Some(place))];
    let refused = writer.restate(Restatement { events, ..Restatement::default() }).await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "no such event");
    let gone = writer.extremities().iter().map(|extremity| extremity.nid).collect();
    let refused = writer.restate(Restatement { gone, ..Restatement::default() }).await;
    assert!(matches!(refused, Err(Error::Damaged { .. })), "no extremity would be left");
    assert!(writer.rework.is_none(), "nothing was added");
}
