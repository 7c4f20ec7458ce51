//! An answer from memory is the one that is built from everything else, byte by byte.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, TransactionId, presence::PresenceState, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use sabha_federation::EventDraft;
use serde_json::{Value, json, value::to_raw_value};
use tokio::{sync::OnceCell, time::Instant};

use super::super::*;
use crate::{
    account_data::{ACCOUNT, IGNORED_USER_LIST},
    ephemeral::receipts::{Kind, Markers, NewReceipt},
    filter::Definition,
    room::{
        read::relations::RelatedBy,
        tests::{Server, message, new_room, redaction, server, topic},
        write::{create::Preset, txn::TxnKey},
    },
};

/// The time of all looks, so that ages are the same too.
const NOW_MS: i64 = 1_900_000_000_000;

/// The filters of clients; the first accepts everything.
fn filters() -> Vec<Value> {
    vec![
        json!({}),
        json!({ "room": { "timeline": { "limit": 20 }, "state": { "lazy_load_members": true } } }),
        json!({ "room": { "timeline": { "limit": 1, "unread_thread_notifications": true } } }),
        json!({ "room": { "state": { "lazy_load_members": true, "include_redundant_members": true } } }),
        json!({ "room": { "timeline": { "not_types": ["m.reaction"] }, "ephemeral": { "not_types": ["m.typing"] } } }),
        json!({ "room": { "ephemeral": { "types": [] }, "timeline": { "limit": 0 } }, "presence": { "types": [] } }),
        json!({ "event_format": "federation" }),
        json!({ "room": { "timeline": { "not_senders": ["@bob:localhost"] }, "ephemeral": { "senders": [] } } }),
    ]
}

fn compiled(filter: Value) -> Arc<SyncFilter> {
    let known = serde_json::from_value(filter).expect("a filter");
    Arc::new(SyncFilter::new(&Definition { known, timeline: RelatedBy::default() }).expect("a small filter"))
}

/// A client that follows what happens.
struct Viewer {
    device: Arc<LocalDevice>,
    request: Request,
}

impl Viewer {
    fn new(device: &Arc<LocalDevice>, filter: Value, state_after: bool) -> Self {
        let request = Request {
            filter: compiled(filter),
            since: None,
            hints: Hints::default(),
            full_state: false,
            state_after,
            state_after_unstable: false,
            set_presence: PresenceState::Offline,
            timeout: Duration::ZERO,
        };
        Self { device: Arc::clone(device), request }
    }

    /// Looks for news in both ways. Returns the answer, and whether memory had all of it. The client takes the answer if it
    /// `takes` it.
    async fn look(&mut self, server: &Server, takes: bool) -> (Value, bool) {
        let (app, caller) = (&server.app, &*self.device);
        let live = app.bus.live(caller.user.nid, app.db.committer().published(), 0);
        watch(app, &live).await.expect("the rooms are read");
        let look = Look {
            app,
            caller,
            request: &self.request,
            since: self.request.since,
            upto: app.db.committer().published(),
            term: server.app.db.term(),
            ephemeral: app.bus.ephemeral(),
            now_ms: NOW_MS,
            ignored: OnceCell::new(),
            budgets: Budgets::default(),
            live: &live,
        };
        let from_memory = match super::answer(&look) {
            Ok(answer) => Some(answer),
            Err(Lacks::Count(room)) => super::answer_after_counting(&look, room).await,
            Err(Lacks::Other) => None,
        };
        let (bytes, has_news) = super::super::answer(&look, Instant::now()).await.expect("answered");
        if let Some((shared, shared_has_news)) = &from_memory {
            assert_eq!(String::from_utf8_lossy(shared), String::from_utf8_lossy(&bytes));
            assert_eq!(*shared_has_news, has_news, "{}", String::from_utf8_lossy(&bytes));
        }
        let answer: Value = serde_json::from_slice(&bytes).expect("JSON");
        if takes {
            let token = answer["next_batch"].as_str().expect("a token");
            self.request.since = Some(token.parse().expect("one of ours"));
            self.request.hints = Hints::of(token).expect("we wrote them");
        }
        (answer, from_memory.is_some())
    }
}

/// Three users in two rooms.
struct Scene {
    server: Server,
    users: Vec<Arc<LocalDevice>>,
    rooms: Vec<OwnedRoomId>,
    /// The events of each room that somebody has sent.
    sent: Vec<Vec<OwnedEventId>>,
}

impl Scene {
    async fn new() -> Self {
        let server = server().await;
        let (mut users, mut rooms) = (Vec::new(), Vec::new());
        for name in ["alice", "bob", "carol"] {
            users.push(server.register(name).await);
        }
        for _ in 0..2 {
            let room = server.app.rooms.create(&users[0], new_room(RoomVersionId::V11, Preset::Public)).await;
            rooms.push(room.expect("created"));
            for user in &users[1..] {
                server.app.rooms.join(user, &rooms[rooms.len() - 1], None).await.expect("joined");
            }
        }
        Self { server, users, rooms, sent: vec![Vec::new(), Vec::new()] }
    }

    async fn send(&mut self, user: usize, room: usize, draft: EventDraft) {
        let device = &self.users[user];
        let scope = format!("send/{}", self.rooms[room]);
        let txn =
            TxnKey { device: device.device_nid, scope: scope.into(), txn: self.sent[room].len().to_string().into() };
        // A user who has left may send nothing.
        if let Ok(event_id) = self.server.app.rooms.send(device, &self.rooms[room], draft, Some(txn)).await {
            self.sent[room].push(event_id);
        }
    }

    /// Does one thing, chosen by `what`.
    async fn act(&mut self, what: u8, user: usize, room: usize) {
        let Self { server, users, rooms, sent } = &*self;
        let (app, device) = (&server.app, &users[user]);
        let held = app.rooms.find(&rooms[room]).await.expect("read").expect("it was created");
        let last = sent[room].last().cloned();
        match (what % 22, last) {
            (6, Some(last)) => {
                let relation = json!({ "rel_type": "m.thread", "event_id": last });
                let content = json!({ "msgtype": "m.text", "body": "in a thread", "m.relates_to": relation });
                let draft = EventDraft { content: to_raw_value(&content).expect("JSON"), ..message("") };
                self.send(user, room, draft).await;
            }
            (7, Some(last)) => self.send(user, room, redaction(&last)).await,
            (8, Some(last)) => {
                let relation = json!({ "rel_type": "m.annotation", "event_id": last, "key": format!("{user}") });
                let content = to_raw_value(&json!({ "m.relates_to": relation })).expect("JSON");
                self.send(user, room, EventDraft { event_type: "m.reaction".to_owned(), content, ..message("") }).await;
            }
            (9, _) => self.send(user, room, topic(&format!("topic {}", self.sent[room].len()))).await,
            (10 | 11, Some(event_id)) => {
                let kind = if what % 22 == 10 { Kind::Read } else { Kind::ReadPrivate };
                let receipt = NewReceipt { kind, thread: None, event_id };
                app.ephemeral
                    .mark_read(&app.rooms, &held, &device.user, Markers::receipt(receipt))
                    .await
                    .expect("read");
            }
            (12, _) => app.ephemeral.set_typing(held.nid, &device.user, Some(Duration::from_secs(60))),
            (13, _) => app.ephemeral.set_typing(held.nid, &device.user, None),
            (14, _) => {
                if app.rooms.leave(device, &rooms[room], None).await.is_err() {
                    app.rooms.join(device, &rooms[room], None).await.expect("joined");
                }
            }
            (15, _) => {
                let ignored = if room == 0 { json!({ "@carol:localhost": {} }) } else { json!({}) };
                let content = to_raw_value(&json!({ "ignored_users": ignored })).expect("JSON");
                app.account_data.put(device.user.nid, ACCOUNT, IGNORED_USER_LIST, content).await.expect("stored");
            }
            (16, Some(event_id)) => {
                let markers = Markers { fully_read: Some(event_id), receipts: Vec::new() };
                app.ephemeral.mark_read(&app.rooms, &held, &device.user, markers).await.expect("read");
            }
            (17 | 18, Some(event_id)) => {
                let thread = if what % 22 == 17 { "main".to_owned() } else { sent[room][0].to_string() };
                let receipt = NewReceipt { kind: Kind::Read, thread: Some(thread), event_id };
                // The event may be in another thread.
                _ = app.ephemeral.mark_read(&app.rooms, &held, &device.user, Markers::receipt(receipt)).await;
            }
            (19, _) => {
                let content = to_raw_value(&json!({ "tags": { "m.favourite": { "order": user } } })).expect("JSON");
                app.account_data.put(device.user.nid, held.nid, "m.tag", content).await.expect("stored");
            }
            (20, _) => {
                let content = json!({ "membership": "join", "displayname": format!("{user} in {}", sent[room].len()) });
                let content = to_raw_value(&content).expect("JSON");
                let (event_type, state_key) = ("m.room.member".to_owned(), Some(device.user.user_id.to_string()));
                self.send(user, room, EventDraft { event_type, state_key, content, redacts: None }).await;
            }
            (21, _) => {
                let content = Raw::from_json_string(json!({ "number": sent[room].len() }).to_string()).expect("JSON");
                let to_all = BTreeMap::from([(DeviceIdOrAllDevices::AllDevices, content)]);
                let messages = BTreeMap::from([(device.user.user_id.clone(), to_all)]);
                let txn = TransactionId::new();
                app.keys.send_to_device(&users[0], "m.test", &txn, &messages).await.expect("sent");
            }
            _ => self.send(user, room, message(["hello", "hello bob", "carol?"][usize::from(what) % 3])).await,
        }
    }

    fn viewers(&self) -> Vec<Viewer> {
        let of_user = |user| filters().into_iter().map(move |filter| Viewer::new(user, filter, false));
        let mut viewers: Vec<_> = self.users.iter().flat_map(of_user).collect();
        viewers.push(Viewer::new(&self.users[1], json!({}), true));
        viewers
    }
}

/// The unread counts of each joined room, of a client that starts over.
async fn counts(server: &Server, device: &Arc<LocalDevice>) -> Vec<Value> {
    let (answer, _) = Viewer::new(device, json!({}), false).look(server, false).await;
    let rooms = answer["rooms"]["join"].as_object().cloned().unwrap_or_default();
    rooms.into_iter().map(|(_, room)| room["unread_notifications"].clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 64, ..ProptestConfig::default() })]

    /// Each client looks after each step, in both ways; some fall behind. What was counted on the way is what a new count
    /// gives.
    #[test]
    fn both_ways_give_the_same_answer(
        steps in prop::collection::vec((any::<u8>(), 0..3_usize, 0..2_usize, any::<u8>()), 1..32),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut scene = Scene::new().await;
            let mut viewers = scene.viewers();
            for (what, user, room, behind) in steps {
                scene.act(what, user, room).await;
                for (number, viewer) in viewers.iter_mut().enumerate() {
                    let is_behind = (number + usize::from(behind)) % 5 == 0;
                    viewer.look(&scene.server, !is_behind).await;
                }
            }
            for user in &scene.users {
                let kept = counts(&scene.server, user).await;
                scene.server.app.push.forget_counts();
                assert_eq!(kept, counts(&scene.server, user).await);
            }
        });
    }
}

#[tokio::test]
async fn a_message_is_told_from_memory_to_all_but_its_sender() {
    let mut scene = Scene::new().await;
    for filter in [json!({}), filters().remove(1)] {
        let users = scene.users.clone();
        let mut viewers: Vec<_> = users.iter().map(|user| Viewer::new(user, filter.clone(), false)).collect();
        // The first message shows them what is not in memory yet, such as the sender's member event.
        for body in ["one", "two", "three"] {
            for viewer in &mut viewers {
                viewer.look(&scene.server, true).await;
            }
            scene.send(0, 0, message(body)).await;
        }
        let mut told = Vec::new();
        for viewer in &mut viewers {
            let (answer, is_from_memory) = viewer.look(&scene.server, true).await;
            let events = &answer["rooms"]["join"][scene.rooms[0].as_str()]["timeline"]["events"];
            assert_eq!(events[0]["content"]["body"], "three", "{answer}");
            told.push(is_from_memory);
        }
        assert_eq!(told, [false, true, true], "{filter}");
        let quiet = viewers[1].look(&scene.server, true).await;
        assert!(quiet.1 && quiet.0.get("rooms").is_none(), "{}", quiet.0);
    }
}

#[tokio::test]
async fn receipts_and_typing_are_told_from_memory_too() {
    let mut scene = Scene::new().await;
    scene.send(0, 0, message("hello")).await;
    let mut carol = Viewer::new(&scene.users[2], json!({}), false);
    carol.look(&scene.server, true).await;
    for (what, field) in [(10, "m.receipt"), (12, "m.typing"), (13, "m.typing")] {
        scene.act(what, 1, 0).await;
        let (answer, is_from_memory) = carol.look(&scene.server, true).await;
        let ephemeral = &answer["rooms"]["join"][scene.rooms[0].as_str()]["ephemeral"]["events"];
        assert_eq!(ephemeral[0]["type"], field, "{answer}");
        assert!(is_from_memory, "{answer}");
    }
}

#[tokio::test]
async fn a_redaction_makes_another_delta() {
    let mut scene = Scene::new().await;
    let app = scene.server.app.clone();
    let room = app.rooms.find(&scene.rooms[0]).await.expect("read").expect("it was created");
    let before = app.db.committer().published();
    scene.send(0, 0, message("a secret")).await;
    let upto = app.db.committer().published();
    let text = || {
        let delta = app.rooms.delta(&room, before, upto).expect("the same for all").expect("an event");
        let mut out = Vec::new();
        delta.write(&mut out, NOW_MS);
        String::from_utf8(out).expect("JSON")
    };
    assert!(text().contains("a secret"));
    let sent = scene.sent[0][0].clone();
    scene.send(0, 0, redaction(&sent)).await;
    assert!(!text().contains("a secret") && text().contains("redacted_because"), "{}", text());
}
