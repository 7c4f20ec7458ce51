//! Filters by related events, however many there are.

use std::{ops::Range, sync::Arc};

use ruma::RoomVersionId;

use super::*;
use crate::{
    room::{
        read::{pages::PageSource, scan::MAX_SCANNED, timeline::Placed},
        tests::{Server, message, new_room, server},
        write::create::Preset,
    },
    store::{Write, relations::MAX_RELATIONS_OF_EVENT},
};

/// The messages of a room, oldest first.
struct World {
    server: Server,
    room: Arc<Room>,
    messages: Vec<Placed>,
}

impl World {
    async fn new(count: usize) -> Self {
        let server = server().await;
        let alice = server.register("alice").await;
        let rooms = &server.app.rooms;
        let room_id = rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Private)).await.expect("created");
        for number in 0..count {
            rooms.send(&alice, &room_id, message(&number.to_string()), None).await.expect("sent");
        }
        let room = rooms.find(&room_id).await.expect("read").expect("it is her room");
        let (messages, _) = rooms.timeline(&room, Position::BEFORE_ALL, room.last_pos(), count).await.expect("read");
        Self { server, room, messages }
    }

    /// Stores relations to a message: one event for each of the positions.
    async fn relate(&self, parent: usize, rel_type: &str, positions: Range<usize>) {
        let (_, event) = &self.messages[parent];
        let row = |pos: usize| {
            rows::RelationColumns {
                room_nid: self.room.nid,
                parent_id: event.event_id().as_str().into(),
                pos: Position(pos as i64),
                sub: 0,
                event_nid: event.nid,
                rel_type: rel_type.into(),
                annotation: None,
            }
            .row()
        };
        let write = Write::new(positions.map(row).collect());
        self.server.app.db.committer().write(write).await.expect("stored");
    }

    /// The numbers of the messages from `from` back that an event of this type relates to, and the place where
    /// reading continues.
    async fn read_back(&self, from: TimelinePlace, rel_type: &str) -> (Vec<usize>, Option<TimelinePlace>) {
        let by = RelatedBy { rel_types: Some(vec![rel_type.to_owned()]), senders: None };
        let source = PageSource::Timeline(Some(Related { by: &by, upto: Position(i64::MAX) }));
        let range = PageRange::Back { from, until: TimelinePlace::BEFORE_ALL };
        let page = self.server.app.rooms.scan(&self.room, source, range, (100, MAX_SCANNED), |_| true).await;
        let (page, _) = page.expect("read");
        let number = |(place, _): &TimelineEvent| self.messages.iter().position(|(other, _)| *other == place.pos);
        (page.events.iter().filter_map(number).collect(), page.next)
    }
}

#[tokio::test]
async fn an_event_with_many_relations_hides_no_other() {
    let world = World::new(3).await;
    for message in 0..3 {
        world.relate(message, "org.old", 0..1).await;
    }
    world.relate(0, "org.new", 1..MAX_RELATIONS_OF_EVENT).await;
    world.relate(2, "org.new", 1..MAX_RELATIONS_OF_EVENT + 1).await;
    let end = TimelinePlace::on_line(world.room.last_pos());
    assert_eq!(world.read_back(end, "org.new").await, (vec![2, 0], None));
    assert_eq!(
        world.read_back(end, "org.old").await,
        (vec![1, 0], None),
        "of each, the newest relations are looked at"
    );
}

#[tokio::test]
async fn a_page_ends_where_enough_relations_were_looked_at_and_the_next_goes_on() {
    // One statement asks about fewer messages, and the newest alone have more relations than a page reads.
    let world = World::new(40).await;
    for message in 40 - MAX_SCANNED.div_ceil(MAX_RELATIONS_OF_EVENT)..40 {
        world.relate(message, "org.many", 0..MAX_RELATIONS_OF_EVENT).await;
    }
    world.relate(0, "org.one", 0..1).await;
    let (found, next) = world.read_back(TimelinePlace::on_line(world.room.last_pos()), "org.one").await;
    assert_eq!(found, [0; 0], "enough was looked at before");
    let next = next.expect("there is more");
    assert!(next.pos > world.messages[0].0);
    assert_eq!(world.read_back(next, "org.one").await, (vec![0], None));
}
