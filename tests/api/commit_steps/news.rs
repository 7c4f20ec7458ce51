//! The changes that a client is told about: how each is made, and how its news is recognized.

use serde_json::{Value, json};

use crate::harness::{Client, TestServer, v3};

/// A change that Bob is told about.
#[derive(Debug, Clone, Copy)]
pub(super) enum News {
    Message,
    Invite,
    Join,
    DeviceName,
    AccountData,
    RoomAccountData,
    Receipt,
    PrivateReceipt,
    ReadMarker,
    ToDevice,
    Knock,
    Ban,
    Forget,
    Typing,
    Presence,
}

/// The changes that are stored.
pub(super) const STORED: [News; 13] = [
    News::Message,
    News::Invite,
    News::Join,
    News::DeviceName,
    News::AccountData,
    News::RoomAccountData,
    News::Receipt,
    News::PrivateReceipt,
    News::ReadMarker,
    News::ToDevice,
    News::Knock,
    News::Ban,
    News::Forget,
];

/// The changes that are only in memory, and have no commit.
pub(super) const EPHEMERAL: [News; 2] = [News::Typing, News::Presence];

/// Alice, Bob, and their rooms.
#[derive(Clone)]
pub(super) struct World {
    pub(super) alice: Client,
    pub(super) bob: Client,
    pub(super) shared: String,
    open: String,
    closed: String,
    read: String,
}

impl World {
    /// Makes a world named after the news.
    pub(super) async fn new(server: &TestServer, news: News) -> Self {
        Self::of(server, &format!("{news:?}").to_lowercase()).await
    }

    /// Registers Alice and Bob with a common room, and two of Alice's: one for Bob to join, and one to knock on.
    pub(super) async fn of(server: &TestServer, name: &str) -> Self {
        let name = |who: &str| format!("{who}-{name}");
        let (alice, bob) = (server.register(&name("alice")).await, server.register(&name("bob")).await);
        let shared = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&shared).await;
        let open = alice.create_room(json!({ "preset": "public_chat" })).await;
        let knock = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
        let closed = alice.create_room(json!({ "preset": "private_chat", "initial_state": knock })).await;
        let read = alice.send_text(&shared, "first", "hello").await;
        Self { alice, bob, shared, open, closed, read }
    }

    pub(super) async fn happens(self, news: News) {
        let Self { alice, bob, shared, open, closed, read } = self;
        match news {
            News::Message => _ = alice.send_text(&shared, "second", "the news").await,
            News::Invite => alice.invite(&open, &bob.user_id).await,
            News::Join => bob.join(&open).await,
            News::DeviceName => {
                let path = v3(["devices", &alice.device_id]);
                alice.put(&path, json!({ "display_name": "another" })).await.ok();
            }
            News::AccountData => {
                bob.put(&v3(["user", &bob.user_id, "account_data", "the.news"]), json!({})).await.ok();
            }
            News::RoomAccountData => {
                let path = v3(["user", &bob.user_id, "rooms", &shared, "account_data", "the.news"]);
                bob.put(&path, json!({})).await.ok();
            }
            News::Receipt => {
                alice.post(&v3(["rooms", &shared, "receipt", "m.read", &read]), json!({})).await.ok();
            }
            News::PrivateReceipt => {
                bob.post(&v3(["rooms", &shared, "receipt", "m.read.private", &read]), json!({})).await.ok();
            }
            News::ReadMarker => {
                bob.post(&v3(["rooms", &shared, "read_markers"]), json!({ "m.fully_read": read })).await.ok();
            }
            News::Knock => _ = bob.post(&v3(["knock", &closed]), json!({})).await.ok(),
            News::Ban => {
                alice.post(&v3(["rooms", &shared, "ban"]), json!({ "user_id": bob.user_id })).await.ok();
            }
            News::Forget => {
                bob.leave(&shared).await;
                bob.post(&v3(["rooms", &shared, "forget"]), json!({})).await.ok();
            }
            News::Typing => {
                let path = v3(["rooms", &shared, "typing", &alice.user_id]);
                alice.put(&path, json!({ "typing": true, "timeout": 30_000 })).await.ok();
            }
            News::Presence => {
                let path = v3(["presence", &alice.user_id, "status"]);
                alice.put(&path, json!({ "presence": "online", "status_msg": "the news" })).await.ok();
            }
            News::ToDevice => {
                let messages = json!({ "messages": { &bob.user_id: { &bob.device_id: { "a": 1 } } } });
                alice.put(&v3(["sendToDevice", "the.news", "txn"]), messages).await.ok();
            }
        }
    }

    /// Counts how often an answer to Bob's sync tells the news.
    pub(super) fn told(&self, news: News, answer: &Value) -> usize {
        let events = |list: &Value, matches: &dyn Fn(&Value) -> bool| {
            list["events"].as_array().into_iter().flatten().filter(|event| matches(event)).count()
        };
        let of_type = |name: &'static str| move |event: &Value| event["type"] == name;
        let joined = &answer["rooms"]["join"][&self.shared];
        match news {
            News::Message => events(&joined["timeline"], &|event| event["content"]["body"] == "the news"),
            News::Invite => usize::from(answer["rooms"]["invite"][&self.open].is_object()),
            News::Join => usize::from(answer["rooms"]["join"][&self.open].is_object()),
            News::DeviceName => {
                let changed = answer["device_lists"]["changed"].as_array();
                changed.into_iter().flatten().filter(|user| **user == *self.alice.user_id).count()
            }
            News::AccountData => events(&answer["account_data"], &of_type("the.news")),
            News::RoomAccountData => events(&joined["account_data"], &of_type("the.news")),
            News::Receipt | News::PrivateReceipt => events(&joined["ephemeral"], &of_type("m.receipt")),
            News::ReadMarker => events(&joined["account_data"], &of_type("m.fully_read")),
            News::Knock => usize::from(answer["rooms"]["knock"][&self.closed].is_object()),
            News::Ban | News::Forget => usize::from(answer["rooms"]["leave"][&self.shared].is_object()),
            News::Typing => events(&joined["ephemeral"], &of_type("m.typing")),
            News::Presence => events(&answer["presence"], &|event| event["content"]["status_msg"] == "the news"),
            News::ToDevice => events(&answer["to_device"], &of_type("the.news")),
        }
    }
}
