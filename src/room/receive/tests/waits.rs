//! Events that wait for others: they are given back, and nothing of them is stored.

use ruma::user_id;

use super::*;

impl World {
    /// Receives an event that must wait. Returns what it waits for.
    async fn wait(&self, event: &Verified) -> Missing {
        let events = self.rows("event").await;
        let Received::Waits { missing, event: back } = self.receive(event).await else { panic!("{:?}", event.pdu()) };
        assert_eq!(back.event.pdu().event_id, event.pdu().event_id);
        assert_eq!(self.rows("event").await, events);
        self.check().await;
        missing
    }
}

#[tokio::test]
async fn an_event_waits_for_its_previous_and_its_auth_events() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let (tips, state) = (world.tips().await, world.state().await);
        let first = world.make(&tips, carol(), message("first"));
        let first_id = first.pdu().event_id.clone();
        let second = world.make_in(&state, &[tips[0].clone(), first_id.clone()], dave(), message("second"));
        assert_eq!(world.wait(&second).await, Missing::Prevs(vec![first_id]));
        world.push(&first).await;
        world.push(&second).await;

        let erin = user_id!("@erin:third.test");
        let (tips, mut state) = (world.tips().await, world.state().await);
        let join = world.make(&tips, erin, member(erin, Membership::Join));
        let join_id = join.pdu().event_id.clone();
        state.insert(("m.room.member".to_owned(), erin.to_string()), join_id.clone());
        let said = world.make_in(&state, &tips, erin, message("I am in"));
        assert_eq!(world.wait(&said).await, Missing::AuthEvents(vec![join_id]));
        world.push(&join).await;
        // Now it comes too early on its branch: she was not in the room yet.
        let (_, flags) = world.push(&said).await;
        assert_eq!(flags, Flags::REJECTED);
    }
}

#[tokio::test]
async fn events_of_another_room_are_missing_in_this_one() {
    let mut world = World::new().await;
    let second = world.rooms().create(&world.alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("made");
    let other = world.rooms().find(&second).await.expect("read").expect("it was created");
    let event = async |event_type: &str| {
        let event = world.rooms().current_state_event(&other, event_type, "").await.expect("read");
        event.expect("it has one").event_id().to_owned()
    };
    let (levels, name) = (event("m.room.power_levels").await, event("m.room.name").await);
    let (tips, mut state) = (world.tips().await, world.state().await);
    let follows = world.make_in(&state, std::slice::from_ref(&name), carol(), message("x"));
    assert_eq!(world.wait(&follows).await, Missing::Prevs(vec![name]));
    state.insert(("m.room.power_levels".to_owned(), String::new()), levels.clone());
    let allowed = world.make_in(&state, &tips, carol(), message("y"));
    assert_eq!(world.wait(&allowed).await, Missing::AuthEvents(vec![levels]));
}
