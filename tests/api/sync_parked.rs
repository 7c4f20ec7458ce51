//! Syncs that wait for news: each device may have a few, with filters of a bounded size, and a new one displaces others.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use ruma::UserId;
use sabha::{
    config::ByteSize,
    filter::Definition,
    limits::parked_syncs::{GIVE_WAY_AFTER, MAX_FILTER_BYTES, MAX_FOR_DEVICE},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Client, Engine, Parks, TestServer, v3};

/// Stops the time of all timers, until this is dropped. [`StoppedTime::pass`] moves it.
struct StoppedTime {
    _until: mpsc::Sender<()>,
}

impl StoppedTime {
    fn new() -> Self {
        let (until, ended) = mpsc::channel();
        // Paused time jumps to the next timer when nothing else is to be done, but not while a blocking task runs.
        tokio::task::spawn_blocking(move || ended.recv());
        tokio::time::pause();
        Self { _until: until }
    }

    async fn pass(&self, time: Duration) {
        // Timers wait until the next whole millisecond.
        tokio::time::advance(time + Duration::from_millis(1)).await;
    }
}

/// Starts a sync that waits for news.
fn park(client: &Client, since: &str, filter: &str) -> JoinHandle<Value> {
    let (client, since, parameters) = (client.clone(), since.to_owned(), format!("timeout=60000{filter}"));
    tokio::spawn(async move { client.sync_with(Some(&since), &parameters).await })
}

/// Returns a token after which there is no news.
async fn caught_up(client: &Client) -> String {
    client.sync(None).await;
    client.sync(None).await["next_batch"].as_str().expect("checked").to_owned()
}

/// Lets something be news, and checks that all these syncs get it.
async fn all_get_news(client: &Client, waiting: Vec<JoinHandle<Value>>) {
    assert!(waiting.iter().all(|sync| !sync.is_finished()));
    client.create_room(json!({})).await;
    for sync in waiting {
        assert!(sync.await.expect("answered")["rooms"]["join"].is_object());
    }
}

both_engines! {
    async fn the_oldest_sync_of_a_device_gives_way_and_stays_where_it_was(server: TestServer) {
        let alice = server.register("alice").await;
        let phone = alice.login_again().await;
        let since = caught_up(&alice).await;
        let of_phone = phone.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let time = StoppedTime::new();
        let mut parks = Parks::watch();
        let other_device = park(&phone, &of_phone, "");
        parks.next().await;
        let mut waiting = Vec::new();
        for _ in 0..=MAX_FOR_DEVICE {
            waiting.push(park(&alice, &since, ""));
            parks.next().await;
        }
        assert!(!waiting[0].is_finished());
        time.pass(GIVE_WAY_AFTER).await;
        let oldest = waiting.remove(0).await.expect("answered");
        assert_eq!(oldest, json!({ "next_batch": since }), "no news, and its own token");
        waiting.push(other_device);
        all_get_news(&alice, waiting).await;
    }

    async fn a_sync_that_gives_way_gets_news_until_then(server: TestServer) {
        let alice = server.register("alice").await;
        let since = caught_up(&alice).await;
        let _time = StoppedTime::new();
        let mut parks = Parks::watch();
        let mut waiting = Vec::new();
        for _ in 0..=MAX_FOR_DEVICE {
            waiting.push(park(&alice, &since, ""));
            parks.next().await;
        }
        all_get_news(&alice, waiting).await;
    }

    async fn the_oldest_of_the_largest_filters_gives_way(engine: Engine) {
        let server = TestServer::builder().engine(engine).config(|config| config.limits.filter_bytes = ByteSize::kib(512));
        let server = server.start().await;
        let alice = server.register("alice").await;
        let since = caught_up(&alice).await;
        // Stored before a sync waits, because the commits wake it, and it parks again.
        let mut filters = Vec::new();
        for number in 0..4 {
            let name = number.to_string().repeat(usize::try_from(MAX_FILTER_BYTES / 4).expect("not much") - 100);
            let filter = json!({ "room": { "timeline": { "not_types": [name] } } });
            let stored = alice.post(&v3(["user", &alice.user_id, "filter"]), filter).await.ok();
            filters.push(stored["filter_id"].as_str().expect("checked").to_owned());
        }
        let time = StoppedTime::new();
        let mut parks = Parks::watch();
        let mut waiting = vec![park(&alice, &since, "")];
        parks.next().await;
        // The filters of four syncs are too large together, but several syncs share one.
        for (id, syncs) in filters.iter().zip([1, 1, 3, 1]) {
            for _ in 0..syncs {
                waiting.push(park(&alice, &since, &format!("&filter={id}")));
                parks.next().await;
            }
        }
        time.pass(GIVE_WAY_AFTER).await;
        let oldest = waiting.remove(1).await.expect("answered");
        assert_eq!(oldest, json!({ "next_batch": since }), "no news, and its own token");
        all_get_news(&alice, waiting).await;
    }

    async fn syncs_share_a_filter_that_each_gives_with_the_request(server: TestServer) {
        let alice = server.register("alice").await;
        let since = caught_up(&alice).await;
        let filter = json!({ "room": { "include_leave": true } }).to_string();
        let encoded = v3([&filter]).rsplit('/').next().expect("one segment").to_owned();
        let mut parks = Parks::watch();
        let mut waiting = Vec::new();
        for _ in 0..MAX_FOR_DEVICE {
            waiting.push(park(&alice, &since, &format!("&filter={encoded}")));
            parks.next().await;
        }
        let user_id = UserId::parse(&*alice.user_id).expect("a user ID");
        let user = server.app().db.find_user(&user_id).await.expect("read").expect("she is registered");
        let definition = Definition::read(&filter).expect("a filter");
        let shared = server.app().filter_cache.given(user.nid, &definition).expect("a small filter");
        assert!(Arc::strong_count(&shared) > MAX_FOR_DEVICE, "all syncs hold this one");
        all_get_news(&alice, waiting).await;
    }
}
