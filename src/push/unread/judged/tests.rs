//! Judged events for a member who comes while somebody else has them locked.

use ruma::RoomVersionId;

use super::*;
use crate::{
    account::LocalDevice,
    push::unread::WorkBudget,
    room::{
        tests::{message, new_room, redaction, server},
        write::create::Preset,
    },
};

#[tokio::test]
async fn a_member_who_comes_while_events_are_added_reads_those_of_the_last_look() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let app = &server.app;
    let room_id = app.rooms.create(&alice, new_room(RoomVersionId::V11, Preset::Public)).await.expect("created");
    app.rooms.join(&bob, &room_id, None).await.expect("joined");
    let room = app.rooms.find(&room_id).await.expect("read").expect("it was created");
    let count = async |device: &LocalDevice| {
        let sight = app.rooms.sight(&room, &device.user).await.expect("read");
        let services = (&app.rooms, &app.ephemeral);
        let upto = app.db.committer().published();
        app.push.unread(services, (&room, &sight), &device.user, upto, &WorkBudget::default()).await.expect("counted");
    };
    count(&bob).await;
    let before = room.last_pos();
    let event_id = app.rooms.send(&alice, &room_id, message("hello"), None).await.expect("sent");
    count(&bob).await;

    let class = app.push.rules(&bob.user).await.expect("read").compiled.class();
    let entry = app.push.judged.find(room.nid, class).expect("it was counted");
    let adding = entry.known.lock().await;
    let known = entry.at_once(&room, before, room.last_pos()).expect("the last look has left them");
    assert_eq!(known.iter().map(|event| event.is_redacted).collect::<Vec<_>>(), [false]);
    assert!(entry.at_once(&room, Position::BEFORE_ALL, room.last_pos()).is_none(), "not all of them are kept there");
    app.rooms.send(&alice, &room_id, redaction(&event_id), None).await.expect("sent");
    assert!(entry.at_once(&room, before, room.last_pos()).is_none(), "nobody has looked at the redaction");
    drop(adding);
    count(&bob).await;
    let known = entry.at_once(&room, before, room.last_pos()).expect("they were added");
    assert_eq!(known.iter().map(|event| event.is_redacted).collect::<Vec<_>>(), [true, false]);
}
