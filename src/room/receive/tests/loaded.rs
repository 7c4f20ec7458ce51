//! Rooms that are loaded between events: what is not stored with their forward extremities is found again.

use sabha_federation::standing::StateAt;

use super::*;
use crate::room::write::outcome::{Built, Edges, Names, Outcome, Placing, StateBefore};

#[tokio::test]
async fn the_states_after_loaded_extremities_are_found_when_an_event_comes() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let base = world.tips().await;
        let ours = world.send(topic("Alice's")).await;
        let carols = world.push_on(&base, carol(), topic("Carol's")).await;
        let daves = world.push_on(&base, dave(), message("Dave's")).await;
        world.evict().await;
        let rows = world.rows("state_side").await;
        let writer = world.rooms().enter(&world.room().await).await.expect("entered");
        assert_eq!(writer.extremities_without_state(), [world.event_of(&carols).await.nid]);
        drop(writer);
        let writer = world.rooms().enter_knowing(&world.room().await).await.expect("entered");
        assert!(writer.extremities_without_state().is_empty());
        drop(writer);
        assert_eq!(world.rows("state_side").await, rows, "its side was stored with it");
        world.push_on(&[ours, carols, daves], dave(), message("merged")).await;
    }
}

/// The state after an extremity may have been one of the log, which is found in memory only.
#[tokio::test]
async fn a_loaded_extremity_whose_side_is_not_stored_gets_one() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let base = world.tips().await;
        world.send(message("beside it")).await;
        let made = world.make(&base, dave(), topic("on a branch"));
        let (db, event_id) = (&world.rooms().db, made.pdu().event_id.clone());
        let room = world.room().await;
        let mut writer = world.rooms().enter(&room).await.expect("entered");
        let before = StateAt::in_log(writer.head().state_pos);
        let names = Names {
            nid: db.committer().ids().event().expect("a number"),
            event_type: db.event_type("m.room.topic").await.expect("a type"),
            sender: db.user(dave(), false).await.expect("a user"),
            key: Some(db.state_key("m.room.topic", "").await.expect("a key")),
        };
        let prev = vec![world.event_of(&base[0]).await.nid];
        let edges = Edges { prev, auth: Vec::new(), auth_depth: 5 };
        let nid = names.nid;
        let built = Built::received(made, names, edges, None);
        let outcome = Outcome {
            is_extremity: true,
            after: Some(before),
            ..Outcome::only_stored(Flags::NONE, Placing::EndOfLine, StateBefore::Known(before))
        };
        writer.accept(built, outcome).await.expect("an extremity is left");
        writer.commit(None).expect("queued").wait().await.expect("committed");
        drop(room);
        world.evict().await;

        let room = world.room().await;
        let writer = world.rooms().enter_knowing(&room).await.expect("entered");
        let after =
            writer.head().extremities.iter().find(|extremity| extremity.nid == nid).and_then(|found| found.after);
        drop(writer);
        let after = after.expect("it is known");
        assert_eq!((after.side.is_some(), world.rows("state_side").await), (true, 1));
        drop(room);
        // Now it is stored.
        world.evict().await;
        let room = world.room().await;
        let writer = world.rooms().enter_knowing(&room).await.expect("entered");
        let tips: Vec<_> =
            writer.head().extremities.iter().map(|found| (found.event_id.clone(), found.after)).collect();
        assert_eq!((tips[1].clone(), tips.len()), ((event_id, Some(after)), 2));
        drop(writer);
        assert_eq!(world.rows("state_side").await, 1);
    }
}
