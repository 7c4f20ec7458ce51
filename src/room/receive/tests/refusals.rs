//! Events that break a rule: they are stored, and clients never read them.

use super::*;

impl World {
    /// Asserts that an event is stored without a place, and that no client reads it.
    async fn assert_hidden(&self, nid: EventNid, event_id: &ruma::EventId) {
        let event = self.event(nid).await;
        assert_eq!(event.place(), None);
        assert_eq!(event.pdu.rejected, event.standing.flags.contains(Flags::REJECTED));
        let data = &self.server.app.account_data;
        let viewer = self.rooms().viewer(data, &self.alice, &self.room_id).await.expect("it is her room");
        assert!(self.rooms().event(&viewer, event_id).await.is_err());
        assert!(self.rooms().find_in_timeline(&viewer.room, event_id).await.expect("read").is_none());
    }

    /// Receives an event that breaks a rule, and asserts that nothing of the room follows it.
    async fn refuse(&mut self, event: &Verified, expected: Flags) -> OwnedEventId {
        let (before, tips, end) = (self.state().await, self.tips().await, self.room().await.last_pos());
        let (nid, flags) = self.push(event).await;
        assert_eq!(flags, expected, "{:?}", event.pdu());
        assert_eq!((self.state().await, self.tips().await, self.room().await.last_pos()), (before, tips, end));
        let event_id = event.pdu().event_id.clone();
        self.assert_hidden(nid, &event_id).await;
        event_id
    }
}

#[tokio::test]
async fn an_event_that_its_auth_events_do_not_allow_is_rejected() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let tips = world.tips().await;
        let mut state = world.state().await;
        // Nothing says that he is a member.
        state.remove(&("m.room.member".to_owned(), dave().to_string()));
        let rejected = world.make_in(&state, &tips, dave(), topic("never"));
        let rejected = world.refuse(&rejected, Flags::REJECTED).await;
        // An event after it goes on as if it were not there.
        let next = world.push_on(&[rejected], carol(), message("after it")).await;
        assert_eq!(world.event_of(&next).await.standing.flags, Flags::TIP);
        assert_eq!(world.tips().await, [next]);
    }
}

#[tokio::test]
async fn an_event_that_the_state_before_it_does_not_allow_is_rejected() {
    let mut world = World::new().await;
    let joined = world.state().await;
    world.push_new(dave(), member(dave(), Membership::Leave)).await;
    let tips = world.tips().await;
    // He names his old membership.
    for draft in [message("still here"), topic("never")] {
        let event = world.make_in(&joined, &tips, dave(), draft);
        world.refuse(&event, Flags::REJECTED).await;
    }
    world.send(message("he is out")).await;
}

#[tokio::test]
async fn an_event_that_the_current_state_does_not_allow_waits_for_one_that_names_it() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let base = world.tips().await;
        world.push_new(carol(), member(dave(), Membership::Ban)).await;
        let said = world.make(&base, dave(), message("not banned yet"));
        let said = world.refuse(&said, Flags::SOFT_FAILED).await;
        let named = world.make(&base, dave(), topic("not banned yet"));
        let named = world.refuse(&named, Flags::SOFT_FAILED).await;
        // A server that had accepted them builds on them.
        let mut prev = world.tips().await;
        prev.extend([said, named]);
        let merged = world.push_on(&prev, carol(), message("all of it")).await;
        assert_eq!(world.tips().await, std::slice::from_ref(&merged));
        assert_eq!(world.event_of(&merged).await.standing.flags, Flags::TIP);
    }
}

#[tokio::test]
async fn a_known_event_is_not_stored_again() {
    let mut world = World::new().await;
    let (tips, base) = (world.tips().await, world.state().await);
    let accepted = world.make(&tips, carol(), topic("once"));
    let mut without = base;
    without.remove(&("m.room.member".to_owned(), dave().to_string()));
    let rejected = world.make_in(&without, &tips, dave(), message("never"));
    for event in [accepted, rejected] {
        let (stored, was) = world.push(&event).await;
        let end = world.rooms().db.committer().published();
        let Received::Known { nid, flags } = world.receive(&event).await else { panic!("it is known") };
        assert_eq!((nid, flags), (stored, was));
        assert_eq!(world.rooms().db.committer().published(), end, "nothing was written");
        world.check().await;
    }
}
