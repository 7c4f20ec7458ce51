//! Syncs that wait for news: each device may have a few, with filters of a bounded size, and a new one ends the oldest.

use sabha::{
    config::ByteSize,
    limits::parked_syncs::{MAX_FILTER_BYTES, MAX_FOR_DEVICE},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::harness::{Client, Engine, Parks, TestServer, v3};

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

both_engines! {
    async fn the_oldest_sync_of_a_device_gives_way_and_stays_where_it_was(server: TestServer) {
        let alice = server.register("alice").await;
        let phone = alice.login_again().await;
        let since = caught_up(&alice).await;
        let of_phone = phone.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let mut parks = Parks::watch();
        let other_device = park(&phone, &of_phone, "");
        parks.next().await;
        let mut waiting = Vec::new();
        for _ in 0..=MAX_FOR_DEVICE {
            waiting.push(park(&alice, &since, ""));
            parks.next().await;
        }
        let oldest = waiting.remove(0).await.expect("answered");
        assert_eq!(oldest, json!({ "next_batch": since }), "no news, and its own token");
        assert!(waiting.iter().all(|sync| !sync.is_finished()) && !other_device.is_finished());
        // The other syncs still get the news.
        alice.create_room(json!({})).await;
        for sync in waiting {
            assert!(sync.await.expect("answered")["rooms"]["join"].is_object());
        }
        other_device.await.expect("answered");
    }

    async fn the_oldest_sync_of_a_user_gives_way_to_large_filters(engine: Engine) {
        let server = TestServer::builder().engine(engine).config(|config| config.limits.filter_bytes = ByteSize::kib(128));
        let server = server.start().await;
        let alice = server.register("alice").await;
        let since = caught_up(&alice).await;
        let mut parks = Parks::watch();
        // The filters of four syncs are too large together, but several syncs share one.
        let mut waiting = Vec::new();
        for (number, syncs) in [1, 1, 4, 1].into_iter().enumerate() {
            let name = number.to_string().repeat(usize::try_from(MAX_FILTER_BYTES / 4).expect("not much"));
            let filter = json!({ "room": { "timeline": { "not_types": [name] } } });
            let stored = alice.post(&v3(["user", &alice.user_id, "filter"]), filter).await.ok();
            let id = stored["filter_id"].as_str().expect("checked");
            for _ in 0..syncs {
                waiting.push(park(&alice, &since, &format!("&filter={id}")));
                parks.next().await;
            }
        }
        let oldest = waiting.remove(0).await.expect("answered");
        assert_eq!(oldest, json!({ "next_batch": since }), "no news, and its own token");
        alice.create_room(json!({})).await;
        for sync in waiting {
            assert!(sync.await.expect("answered")["rooms"]["join"].is_object());
        }
    }

    async fn syncs_share_a_filter_that_each_gives_with_the_request(server: TestServer) {
        let alice = server.register("alice").await;
        let since = caught_up(&alice).await;
        // Six parts with patterns take more than a sixth of what a user's filters may take.
        let all = json!({ "types": ["*"] });
        let filter = json!({
            "presence": all, "account_data": all,
            "room": { "timeline": all, "state": all, "ephemeral": all, "account_data": all },
        });
        let encoded = v3([&filter.to_string()]).rsplit('/').next().expect("one segment").to_owned();
        let mut parks = Parks::watch();
        let mut waiting = Vec::new();
        for _ in 0..MAX_FOR_DEVICE {
            waiting.push(park(&alice, &since, &format!("&filter={encoded}")));
            parks.next().await;
        }
        alice.create_room(json!({})).await;
        for sync in waiting {
            assert!(sync.await.expect("answered")["rooms"]["join"].is_object());
        }
    }
}
