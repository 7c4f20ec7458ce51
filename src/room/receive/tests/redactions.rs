//! Redactions by other servers, also of events that come after them.

use ruma::user_id;

use super::*;
use crate::room::tests::redaction;

impl World {
    async fn is_redacted(&self, event_id: &ruma::EventId) -> bool {
        let event = self.event_of(event_id).await;
        let is_redacted = event.redacted_because.is_some();
        assert_eq!(event.pdu.content.get() == "{}", is_redacted, "{:?}", event.pdu);
        is_redacted
    }
}

#[tokio::test]
async fn an_event_is_redacted_by_its_own_server_or_by_power() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        let erin = user_id!("@erin:third.test");
        world.push_new(erin, member(erin, Membership::Join)).await;
        for (by, redacts) in [(dave(), true), (carol(), true), (erin, false)] {
            let said = world.push_new(dave(), message("a slip")).await;
            world.push_new(by, redaction(&said)).await;
            for _ in 0..2 {
                assert_eq!(world.is_redacted(&said).await, redacts, "by {by}");
                world.evict().await;
                world.rooms().events.handle().evict_all();
            }
        }
    }
}

#[tokio::test]
async fn a_redaction_waits_for_its_target() {
    for server in servers_on_both_engines().await {
        let mut world = World::on(server, RoomVersionId::V11).await;
        world.evicts = true;
        let erin = user_id!("@erin:third.test");
        world.push_new(erin, member(erin, Membership::Join)).await;
        for (by, redacts) in [(dave(), true), (carol(), true), (erin, false)] {
            let base = world.tips().await;
            let said = world.make(&base, dave(), message("a slip"));
            world.push_on(&base, by, redaction(&said.pdu().event_id)).await;
            let (nid, flags) = world.push(&said).await;
            assert!(flags.is_accepted());
            assert_eq!(world.is_redacted(&said.pdu().event_id).await, redacts, "by {by}");
            let row = format!("redaction WHERE event_nid = {}", nid.0);
            assert_eq!(world.rows(&row).await, i64::from(redacts), "by {by}");
        }
    }
}

#[tokio::test]
async fn the_list_of_rooms_never_shows_a_topic_that_was_redacted_before_it_came() {
    let mut world = World::new().await;
    let base = world.tips().await;
    let named = world.make(&base, dave(), topic("a slip"));
    world.push_on(&base, carol(), redaction(&named.pdu().event_id)).await;
    world.push(&named).await;
    let (current, room) = (world.current("m.room.topic", "").await, world.room().await.nid);
    assert_eq!(current.as_ref(), Some(&named.pdu().event_id));
    let [listing] = &world.rooms().listings(&[room]).await.expect("read")[..] else { panic!("a room") };
    assert_eq!(listing.topic, None);
}
