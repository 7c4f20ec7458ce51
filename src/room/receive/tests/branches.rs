//! Branches of a room, and their merges.

use super::*;

#[tokio::test]
async fn a_message_of_a_member_goes_to_the_end_of_the_line() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V12).await;
        let (tips, since) = (world.tips().await, world.server.sync(&world.alice, None).await.1);
        let event = world.make(&tips, carol(), message("hello"));
        let sides = world.rows("state_side").await;
        let (nid, flags) = world.push(&event).await;
        assert_eq!(flags, Flags::TIP);
        assert_eq!(world.tips().await, [event.pdu().event_id.clone()]);
        assert_eq!(world.rows("state_side").await, sides, "one line needs none");
        let (answer, _) = world.server.sync(&world.alice, Some(since)).await;
        let timeline = &answer["rooms"]["join"][world.room_id.as_str()]["timeline"]["events"];
        assert_eq!(timeline[0]["content"]["body"], "hello", "{answer}");
        assert_eq!(world.event(nid).await.pdu.json, event.pdu().json, "byte for byte");
    }
}

/// Alice and Carol name the room at the same time, Dave sets the topic, and Carol joins their branches.
async fn fork_and_merge(world: &mut World) {
    let base = world.send(message("base")).await;
    let log = world.rows("state_log").await;
    let name = |name: &str| state("m.room.name", &json!({ "name": name }));
    let alices = world.send(name("Alice's")).await;
    let carols = world.push_on(std::slice::from_ref(&base), carol(), name("Carol's")).await;
    let daves = world.push_on(std::slice::from_ref(&base), dave(), topic("Dave's")).await;
    let on_it = world.push_on(std::slice::from_ref(&carols), dave(), message("on Carol's branch")).await;
    assert_eq!(world.tips().await, [alices, daves.clone(), on_it.clone()]);
    world.push_on(&[on_it, daves], carol(), message("two of three")).await;
    let resolved = world.state().await;
    let tips = world.tips().await;
    assert_eq!(tips.len(), 2);
    let merged = world.push_on(&tips, carol(), state("org.example.merged", &json!({}))).await;
    assert_eq!(world.tips().await, std::slice::from_ref(&merged));
    assert_eq!(world.event_of(&merged).await.standing.flags, Flags::TIP);
    let mut expected = resolved;
    expected.insert(("org.example.merged".to_owned(), String::new()), merged);
    assert_eq!(world.state().await, expected, "a merge changes its own key only");
    // Alice's name, Carol's if it wins, Dave's topic, the merge.
    let changes = world.rows("state_log").await - log;
    assert!((3..=4).contains(&changes), "{changes} rows for keys that change");
    world.send(message("one line again")).await;
}

#[tokio::test]
async fn branches_have_the_resolved_state_and_their_merge_goes_on_with_it() {
    for server in servers_on_both_engines().await {
        fork_and_merge(&mut World::on(server, RoomVersionId::V11).await).await;
    }
    fork_and_merge(&mut World::on(server().await, RoomVersionId::V12).await).await;
}

#[tokio::test]
async fn branches_are_the_same_when_the_room_is_loaded_between_their_events() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        world.evicts = true;
        fork_and_merge(&mut world).await;
    }
}

#[tokio::test]
async fn a_local_event_covers_all_branches() {
    let mut world = World::new().await;
    let base = world.tips().await;
    let first = world.push_on(&base, carol(), topic("Carol's")).await;
    let second = world.push_on(&base, dave(), topic("Dave's")).await;
    let third = world.push_on(&base, dave(), message("Dave's")).await;
    assert_eq!(world.tips().await, [first.clone(), second.clone(), third.clone()]);
    let local = world.send(message("on all of them")).await;
    assert_eq!(world.event_of(&local).await.pdu.prev_events, [first, second, third]);
    assert_eq!(world.tips().await, [local]);
}

/// A delta is read by everybody who has been in the room since, and a branch may have another state.
#[tokio::test]
async fn events_on_a_branch_with_a_state_of_its_own_are_in_no_delta() {
    let mut world = World::new().await;
    let base = world.tips().await;
    let upto = async |world: &World| {
        let room = world.room().await;
        let (pos, before) = (room.last_pos(), Position(room.last_pos().0 - 1));
        world.rooms().delta(&room, before, pos).map(|delta| delta.expect("an event").events)
    };
    world.send(state("m.room.name", &json!({ "name": "not on the branch" }))).await;
    world.push_new(carol(), message("on the line")).await;
    assert_eq!(upto(&world).await, Some(1));
    let topic = world.push_on(&base, carol(), topic("on a branch")).await;
    let said = world.push_on(&[topic], dave(), message("on the branch")).await;
    assert!(world.event_of(&said).await.standing.before.side.is_some());
    assert_eq!(upto(&world).await, None);
}
