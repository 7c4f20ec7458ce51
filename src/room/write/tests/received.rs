//! Events of other servers, with everything that they bring: the states of branches, gaps, edges to events that are missing,
//! and places for events that were only stored before.

use ruma::{event_id, user_id};
use sabha_federation::{
    graph::Gap,
    held::{Held, StateDelta},
    sides::Side,
    state_log::StateHash,
};

use super::*;
use crate::{
    room::tests::{other_service, redaction, servers_on_both_engines},
    store::{KeyNid, tests::touched_by},
};

impl World {
    /// A side on the current state, in which a key of no room has this event.
    async fn side(&self, event: EventNid) -> Arc<Side> {
        let nid = self.rooms().db.committer().ids().side().expect("a number");
        let held = Held { event_nid: event, membership: None };
        let delta = StateDelta::from_iter([(KeyNid(1 << 40), Some(held))]);
        let hash = StateHash::from_bytes([7; 16]);
        Arc::new(Side { nid, base_pos: self.last_pos().await, parent: None, ordinal: 0, hash, delta })
    }

    async fn rows(&self, of: &str) -> i64 {
        count_rows(&self.rooms().db, of).await
    }
}

/// The outcome of an event of another server that follows on the head.
fn on_head(built: &mut Built) -> Outcome {
    Outcome { flags: Flags::NONE, ..Outcome::of_local(built, None, None, None) }
}

fn as_outlier(_: &mut Built) -> Outcome {
    Outcome::only_stored(Flags::OUTLIER, Placing::Nowhere, StateBefore::Known(StateAt::EMPTY))
}

#[tokio::test]
async fn an_outlier_gets_its_place_and_keeps_its_number() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let follower = other_service(&world.server);
        let mut writer = world.enter().await;
        let mut built = world.received(&writer, &carol, message("found later")).await;
        let (nid, event_id) = (built.nid, built.pdu().event_id.clone());
        let (mut copy, outcome) = (built.copy(), as_outlier(&mut built));
        writer.accept(built, outcome).await.expect("an extremity is left");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        let at_follower = async || {
            let room = follower.find(&world.room_id).await.expect("read").expect("it is stored");
            follower.events.get(&room, nid).await.expect("stored").standing
        };
        assert_eq!(world.event(nid).await.standing, Standing::OUTLIER);
        assert_eq!(at_follower().await, Standing::OUTLIER);

        let before = world.counts().await;
        let mut writer = world.enter().await;
        let outcome = Outcome { stored_before: true, ..on_head(&mut copy) };
        writer.accept(copy, outcome).await.expect("an extremity is left");
        let (_, touches) = touched_by(&world.rooms().db, async {
            writer.commit(None).expect("queued").wait().await.expect("committed");
        })
        .await;
        assert_eq!(touches, ["Graph", "Event"], "in this order");
        let now = world.counts().await;
        let new: Vec<i64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!(new, [0, 0, 1, 0, 0, 0], "{TABLES:?}");
        let place = TimelinePlace::on_line(world.last_pos().await);
        for _ in 0..2 {
            let event = world.event(nid).await;
            assert_eq!((event.place(), event.standing.flags), (Some(place), Flags::TIP));
            assert_eq!(world.standing(nid).await, event.standing);
            assert_eq!(at_follower().await, event.standing, "another process has evicted the outlier");
            assert_eq!(world.extremities().await, [nid]);
            let found = world.rooms().find_in_timeline(&*world.room().await, &event_id).await.expect("read");
            assert_eq!(found.map(|found| found.nid), Some(nid));
            world.evict().await;
        }
    }
}

/// A server may send the whole event again, and must not bring back what was redacted.
#[tokio::test]
async fn an_outlier_that_was_redacted_stays_so_when_it_gets_its_place() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let mut writer = world.enter().await;
        let mut built = world.received(&writer, &carol, message("secret")).await;
        let (nid, mut copy) = (built.nid, built.copy());
        let outcome = as_outlier(&mut built);
        writer.accept(built, outcome).await.expect("an extremity is left");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        world.send(redaction(&copy.pdu().event_id)).await;

        let mut writer = world.enter().await;
        let outcome = Outcome { stored_before: true, ..on_head(&mut copy) };
        writer.accept(copy, outcome).await.expect("an extremity is left");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        for _ in 0..2 {
            let event = world.event(nid).await;
            assert_eq!((event.pdu.content.get(), event.redacted_because.is_some()), ("{}", true));
            assert!(event.place().is_some());
            world.evict().await;
            world.rooms().events.handle().evict_all();
        }
    }
}

#[tokio::test]
async fn a_rejected_event_says_so_in_memory_and_when_it_is_read() {
    let world = World::new().await;
    let carol = world.remote_user(user_id!("@carol:remote.test")).await;
    for (flags, rejected) in [(Flags::REJECTED, true), (Flags::SOFT_FAILED, false)] {
        let outcome = |_: &mut Built| Outcome::only_stored(flags, Placing::Nowhere, StateBefore::Current);
        let nid = world.receive(&carol, message(&format!("{flags:?}")), outcome).await;
        for _ in 0..2 {
            assert_eq!(world.event(nid).await.pdu.rejected, rejected, "{flags:?}");
            world.rooms().events.handle().evict_all();
        }
    }
}

#[tokio::test]
async fn a_side_is_stored_with_its_event_and_found_before() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let on_branch = |side: &Arc<Side>, stored: bool| {
            let (before, sides) = (StateBefore::Known(side.at()), if stored { vec![Arc::clone(side)] } else { vec![] });
            move |built: &mut Built| Outcome { before, sides, ..on_head(built) }
        };
        let first = world.side(EventNid(1)).await;
        // Now the words are stored.
        world.receive(&carol, topic("first"), on_branch(&first, true)).await;

        let rows = world.rooms().db.counters().rows_written();
        world.receive(&carol, topic("second"), on_branch(&first, false)).await;
        let without = world.rooms().db.counters().rows_written();
        let second = world.side(EventNid(2)).await;
        let mut writer = world.enter().await;
        let mut built = world.received(&writer, &carol, topic("third")).await;
        let (nid, outcome) = (built.nid, on_branch(&second, true)(&mut built));
        writer.accept(built, outcome).await.expect("an extremity is left");
        let room = Arc::clone(&writer.room);
        let committed = writer.commit(None).expect("queued");
        assert_eq!(room.queued.side(second.nid), Some(Arc::clone(&second)), "nothing has waited for the commit");
        committed.wait().await.expect("committed");
        assert_eq!(world.enter().await.queued_side(second.nid), None, "it is in the database");
        let with = world.rooms().db.counters().rows_written();
        assert_eq!(with - without, without - rows + 1, "a side is one row");
        assert_eq!(world.standing(nid).await.before, second.at());
        let stored = format!("state_side WHERE side_nid = {} AND base_pos = {}", second.nid.0, second.base_pos.0);
        assert_eq!((world.rows(&stored).await, world.rows("state_side").await), (1, 2));
    }
}

#[tokio::test]
async fn an_event_brings_gaps_and_edges_to_events_that_are_missing() {
    for server in servers_on_both_engines().await {
        let world = World::on(server).await;
        let carol = world.remote_user(user_id!("@carol:remote.test")).await;
        let (one, other) = (event_id!("$one"), event_id!("$other"));
        let edge = |missing: &ruma::EventId, covers| MissingEdge { missing: missing.to_owned(), covers };
        let pending = PendingRedaction { target: other.to_owned(), by_power: true };
        let outcome = |built: &mut Built| Outcome {
            gap: Some(GapChange::Opened),
            missing: vec![edge(one, true), edge(other, false)],
            pending_redaction: Some(pending),
            ..on_head(built)
        };
        let (nid, touches) =
            touched_by(&world.rooms().db, world.receive(&carol, message("after a gap"), outcome)).await;
        assert_eq!(touches, ["Graph", "Event"]);
        let at = world.event(nid).await.place().expect("it is on the line");
        let of = |next_sub: i64, open: bool| {
            let place = format!("pos = {} AND sub = 0", at.pos.0);
            format!("timeline_gap WHERE {place} AND next_sub = {next_sub} AND {}open", if open { "" } else { "NOT " })
        };
        assert_eq!(world.rows(&of(-1, true)).await, 1);
        for (missing, covers) in [(one, ""), (other, "NOT ")] {
            let edge =
                format!("edge_missing WHERE missing_id = '{missing}' AND child_nid = {} AND {covers}covers", nid.0);
            assert_eq!(world.rows(&edge).await, 1, "{missing}");
        }
        let pending =
            format!("pending_redaction WHERE target_id = '{other}' AND redaction_nid = {} AND by_power", nid.0);
        assert_eq!(world.rows(&pending).await, 1);

        // An event that is fetched into the gap fills it, and leaves the head alone.
        let (extremities, end) = (world.extremities().await, world.last_pos().await);
        let filled = GapChange::Filled { gap: Gap { at, next_sub: -2, open: false }, tried_ms: 5 };
        let history = |_: &mut Built| Outcome {
            gap: Some(filled),
            ..Outcome::only_stored(Flags::NONE, Placing::Gap(at.just_before()), StateBefore::Current)
        };
        world.receive(&carol, message("in the gap"), history).await;
        assert_eq!((world.rows(&of(-2, false)).await, world.rows("timeline_gap").await), (1, 1));
        assert_eq!((world.extremities().await, world.last_pos().await), (extremities, end));
    }
}

#[tokio::test]
async fn the_head_has_the_extremities_as_they_are_stored_and_the_state_with_all_changes() {
    let world = World::new().await;
    let carol = world.remote_user(user_id!("@carol:remote.test")).await;
    let [old] = world.extremities().await[..] else { panic!("the room has one end") };
    let state = StateAt::in_log(world.last_pos().await);
    let beside = |built: &mut Built| Outcome {
        before: StateBefore::Known(state),
        after: Some(state),
        covers: Vec::new(),
        ..on_head(built)
    };
    let mut writer = world.enter().await;
    let mut built = world.received(&writer, &carol, message("found later")).await;
    let (mut copy, outcome) = (built.copy(), as_outlier(&mut built));
    writer.accept(built, outcome).await.expect("an extremity is left");
    writer.commit(None).expect("queued").wait().await.expect("committed");
    let branch = world.receive(&carol, message("on a branch"), beside).await;
    let found = copy.nid;
    let mut writer = world.enter().await;
    let outcome = Outcome { stored_before: true, ..beside(&mut copy) };
    writer.accept(copy, outcome).await.expect("an extremity is left");
    writer.commit(None).expect("queued").wait().await.expect("committed");
    let extremities = async || world.enter().await.head().extremities.clone();
    let known = extremities().await;
    let fields: Vec<_> = known.iter().map(|event| (event.nid, event.ours, event.after)).collect();
    // In the order in which they became it, and not of their numbers.
    assert_eq!(fields, [(old, true, None), (branch, false, Some(state)), (found, false, Some(state))]);
    world.evict().await;
    assert_eq!(extremities().await, known);

    let mut writer = world.enter().await;
    let before = writer.head().hash;
    writer.append(&world.alice.user, topic("one")).await.expect("allowed");
    writer.append(&world.alice.user, topic("two")).await.expect("allowed");
    let hash = writer.head().hash;
    assert_ne!(hash, before);
    writer.commit(None).expect("queued").wait().await.expect("committed");
    assert_eq!(world.enter().await.head().hash, hash);
}

#[tokio::test]
async fn a_write_that_fails_leaves_nothing_of_what_a_received_event_brings() {
    let world = World::new().await;
    let carol = world.remote_user(user_id!("@carol:remote.test")).await;
    let (side, tips) = (world.side(EventNid(1)).await, world.extremities().await);
    let mut writer = world.enter().await;
    let mut built = world.received(&writer, &carol, message("never stored")).await;
    let outcome = Outcome {
        before: StateBefore::Known(side.at()),
        sides: vec![Arc::clone(&side)],
        gap: Some(GapChange::Opened),
        missing: vec![MissingEdge { missing: event_id!("$one").to_owned(), covers: true }],
        ..on_head(&mut built)
    };
    writer.accept(built, outcome).await.expect("an extremity is left");
    // An earlier write of the room fails meanwhile.
    drop(writer.room.lineage.until_finished());
    writer.commit(None).expect("queued").wait().await.expect_err("its chain is broken");
    assert_eq!(world.enter().await.queued_side(side.nid), None);
    assert_eq!(world.extremities().await, tips);
    for table in ["state_side", "timeline_gap", "edge_missing"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn our_newest_event_has_its_position_in_the_head() {
    let world = World::new().await;
    let carol = world.remote_user(user_id!("@carol:remote.test")).await;
    let ours = world.send(message("ours")).await.pos;
    world.receive(&carol, message("not ours"), on_head).await;
    assert_eq!(world.rows(&format!("room_head WHERE our_pos = {} AND last_pos > {0}", ours.0)).await, 1);
    let again = world.send(message("again")).await.pos;
    assert_eq!(world.rows(&format!("room_head WHERE our_pos = {}", again.0)).await, 1);
}
