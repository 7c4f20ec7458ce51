//! Events that come at the same time, and commits that take long.

use sabha_federation::model::LogReader as _;
use tokio::sync::Semaphore;

use super::*;
use crate::room::tests::{hold_commits, send_states};

#[tokio::test]
async fn events_that_come_at_the_same_time_are_all_stored() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let base = world.tips().await;
        let events = [
            world.make(&base, carol(), topic("Carol's")),
            world.make(&base, dave(), topic("Dave's")),
            world.make(&base, dave(), message("Dave's")),
        ];
        let [first, second, third] = &events;
        let received = tokio::join!(world.receive(first), world.receive(second), world.receive(third));
        for (event, received) in events.iter().zip([received.0, received.1, received.2]) {
            let Received::Stored { flags, .. } = received else { panic!("{received:?}") };
            world.learn(event.pdu(), flags);
        }
        world.check().await;
        assert_eq!(world.tips().await.len(), 3);

        let tips = world.tips().await;
        let twice = world.make(&tips, carol(), message("twice"));
        let received = tokio::join!(world.receive(&twice), world.receive(&twice));
        let mut stored = 0;
        for received in [received.0, received.1] {
            match received {
                Received::Stored { flags, .. } => {
                    stored += 1;
                    world.learn(twice.pdu(), flags);
                }
                Received::Known { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(stored, 1);
        world.check().await;
    }
}

/// Gives other tasks the time of some reads.
async fn some_reads(world: &World) {
    for _ in 0..20 {
        world.rooms().db.engine().await.expect("read");
    }
}

/// A server that is told so does not send the event again.
#[tokio::test]
async fn an_event_is_known_only_when_it_is_on_the_disk() {
    let mut world = World::new().await;
    let tips = world.tips().await;
    let event = world.make(&tips, carol(), message("twice"));
    let room = world.room().await;
    let gate = hold_commits(&world.server);
    let receive = || {
        let (app, room, event) = (world.server.app.clone(), Arc::clone(&room), event.clone());
        tokio::spawn(async move { app.rooms.receive(&room, Incoming::new(event, Mode::Pushed)).await })
    };
    let first = receive();
    while room.queued.find(&event.pdu().event_id).is_none() {
        some_reads(&world).await;
    }
    let again = receive();
    some_reads(&world).await;
    assert!(!first.is_finished() && !again.is_finished());
    gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    assert!(matches!(first.await.expect("no panic"), Ok(Received::Stored { .. })));
    assert!(matches!(again.await.expect("no panic"), Ok(Received::Known { .. })));
}

/// The changes between a state that memory has lost and one that is queued are neither in memory nor in the database.
#[tokio::test]
async fn the_log_is_read_with_its_queued_changes() {
    let world = World::new().await;
    let room = world.room().await;
    let early = room.last_pos();
    send_states(&world.server, &world.alice, &room, "org.example.many", 600).await;
    assert!(room.view().state.tail_from() > early);
    let gate = hold_commits(&world.server);
    let mut writer = world.rooms().enter(&room).await.expect("entered");
    writer.append(&world.alice.user, topic("queued")).await.expect("allowed");
    let queued = writer.commit(None).expect("queued");
    let (app, of, upto) = (world.server.app.clone(), Arc::clone(&room), queued.position());
    let read = tokio::spawn(async move { app.rooms.reads(&of).between(early, upto).await });
    some_reads(&world).await;
    assert!(!read.is_finished());
    gate.add_permits(Semaphore::MAX_PERMITS >> 1);
    let changes = read.await.expect("no panic").expect("read");
    assert_eq!(changes.len(), 601, "with the topic");
    queued.wait().await.expect("committed");
}
