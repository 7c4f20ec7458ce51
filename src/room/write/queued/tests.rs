//! Writers that enter while other writers' events are queued. These tests run on one thread, and the committer runs
//! when they wait for it.

use ruma::{OwnedEventId, RoomVersionId};
use sabha_federation::EventDraft;
use serde_json::{Value, json};

use super::*;
use crate::{
    room::{
        Room, Rooms,
        tests::{Server, message, new_room, redaction, server, state, topic},
        write::{RoomWriter, create::Preset},
    },
    store::{Committed, Error, room_heads as rows, vocabulary::User},
};

struct World {
    server: Server,
    alice: Arc<User>,
    room: Arc<Room>,
}

impl World {
    async fn new() -> Self {
        let server = server().await;
        let alice = server.register("alice").await;
        let new = new_room(RoomVersionId::V11, Preset::Public);
        let room_id = server.app.rooms.create(&alice, new).await.expect("created");
        let room = server.app.rooms.find(&room_id).await.expect("read").expect("it was created");
        Self { server, alice: Arc::clone(&alice.user), room }
    }

    fn rooms(&self) -> &Rooms {
        &self.server.app.rooms
    }

    async fn enter(&self) -> RoomWriter<'_> {
        self.rooms().enter(&self.room).await.expect("entered")
    }

    /// Queues an event and does not wait for its commit.
    async fn queue(&self, draft: EventDraft) -> (OwnedEventId, Committed) {
        let mut writer = self.enter().await;
        let event_id = writer.append(&self.alice, draft).await.expect("allowed");
        (event_id, writer.commit(None).expect("queued"))
    }

    /// The content that the event says it replaced, in every place that readers look.
    async fn prev_contents(&self, event_id: &EventId) -> Vec<Option<String>> {
        let upto = self.room.last_pos();
        let recent = self.room.latest(upto, 1).expect("it is recent");
        let ring = recent.into_iter().map(|(_, event)| event).find(|event| event.event_id() == event_id);
        let writer = self.enter().await;
        let found = writer.find_event(event_id).await.expect("read").expect("it was sent");
        let shown = |event: &StoredEvent| event.replaces.as_ref().map(|replaced| replaced.content.get().to_owned());
        ring.iter().map(|event| shown(event)).chain([shown(&found)]).collect()
    }
}

#[tokio::test]
async fn the_next_writer_finds_what_is_queued() {
    let world = World::new().await;
    let mut waiting = Vec::new();
    for level in 1..=5 {
        let levels = json!({ "ban": level, "users": { world.alice.user_id.as_str(): 100 } });
        let (_, committed) = world.queue(state("m.room.power_levels", &levels)).await;
        waiting.push(committed);
        let writer = world.enter().await;
        let levels = writer.state("m.room.power_levels", "").await.expect("found").expect("just set");
        assert_eq!(serde_json::from_str::<Value>(levels.content.get()).expect("JSON")["ban"], level);
        let found = writer.find_event(&levels.event_id).await.expect("found").expect("just set");
        assert_eq!(found.event_id(), &*levels.event_id);
        assert!(found.replaces.is_some());
        drop(writer);
        waiting.push(world.queue(message("on top")).await.1);
    }
    assert_eq!(world.room.queued.len(), waiting.len(), "nothing of it is committed");
    for committed in waiting {
        committed.wait().await.expect("committed");
    }
    assert_eq!(world.room.queued.len(), 0, "readers have them all now");
}

#[tokio::test]
async fn what_replaces_an_event_whose_redaction_is_queued_does_not_show_it() {
    let world = World::new().await;
    let (slip, committed) = world.queue(topic("a slip")).await;
    committed.wait().await.expect("committed");
    let (_, first) = world.queue(redaction(&slip)).await;
    let (fine, second) = world.queue(topic("fine")).await;
    assert!(world.room.queued.len() >= 3, "nothing of it is committed");
    assert!(first.wait().await.is_ok() && second.wait().await.is_ok());
    assert_eq!(world.prev_contents(&fine).await, vec![Some("{}".to_owned()); 2]);
}

#[tokio::test]
async fn an_event_that_was_queued_before_the_redaction_forgets_what_it_replaced() {
    let world = World::new().await;
    let (slip, first) = world.queue(topic("a slip")).await;
    let (fine, second) = world.queue(topic("fine")).await;
    let (_, third) = world.queue(redaction(&slip)).await;
    // The second one is redacted while the first one's redaction is still queued.
    let (_, fourth) = world.queue(redaction(&fine)).await;
    for committed in [first, second, third, fourth] {
        committed.wait().await.expect("committed");
    }
    assert_eq!(world.prev_contents(&fine).await, [Some("{}".to_owned())]);
    let (last, committed) = world.queue(topic("last")).await;
    committed.wait().await.expect("committed");
    assert_eq!(world.prev_contents(&last).await, vec![Some("{}".to_owned()); 2]);
}

#[tokio::test]
async fn a_failed_write_takes_what_was_built_on_it_along_and_leaves_nothing_in_memory() {
    let world = World::new().await;
    let mut writer = world.enter().await;
    writer.append(&world.alice, topic("never stored")).await.expect("allowed");
    // A room of this number is there already.
    let taken = rows::RoomColumns {
        room_nid: world.room.nid,
        room_id: "!other:sabha.test".into(),
        version: "11".into(),
        created_at: 0,
    };
    writer.add_row(taken.row(), None);
    let fails = writer.commit(None).expect("queued");
    let (_, built_on_it) = world.queue(topic("neither")).await;
    assert_eq!(world.room.queued.len(), 2);
    assert!(matches!(fails.wait().await, Err(Error::Database(_))));
    assert!(matches!(built_on_it.wait().await, Err(Error::Superseded)));

    let (_, committed) = world.queue(topic("stored")).await;
    committed.wait().await.expect("committed");
    let World { server, room, .. } = world;
    let now = server.app.rooms.find(&room.room_id).await.expect("read").expect("it is there");
    assert!(!Arc::ptr_eq(&room, &now), "the room was loaded afresh");
    assert_eq!(now.queued.len(), 0);
    let broken = Arc::downgrade(&room);
    drop(room);
    assert!(broken.upgrade().is_none(), "nobody holds the broken room and what it had queued");
}
