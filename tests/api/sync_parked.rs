//! Syncs that wait for news: each device may have a few, and a new one ends the oldest.

use sabha::limits::parked_syncs::MAX_FOR_DEVICE;

use crate::harness::{Parks, TestServer};

both_engines! {
    async fn the_oldest_sync_of_a_device_gives_way_and_stays_where_it_was(server: TestServer) {
        let alice = server.register("alice").await;
        let phone = alice.login_again().await;
        alice.sync(None).await;
        let since = alice.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let of_phone = phone.sync(None).await["next_batch"].as_str().expect("checked").to_owned();
        let mut parks = Parks::watch();
        let park = |client: &crate::harness::Client, since: &str| {
            let (client, since) = (client.clone(), since.to_owned());
            tokio::spawn(async move { client.sync_with(Some(&since), "timeout=60000").await })
        };
        let other_device = park(&phone, &of_phone);
        parks.next().await;
        let mut waiting = Vec::new();
        for _ in 0..=MAX_FOR_DEVICE {
            waiting.push(park(&alice, &since));
            parks.next().await;
        }
        let oldest = waiting.remove(0).await.expect("answered");
        assert_eq!(oldest, serde_json::json!({ "next_batch": since }), "no news, and its own token");
        assert!(waiting.iter().all(|sync| !sync.is_finished()) && !other_device.is_finished());
        // The other syncs still get the news.
        alice.create_room(serde_json::json!({})).await;
        for sync in waiting {
            assert!(sync.await.expect("answered")["rooms"]["join"].is_object());
        }
        other_device.await.expect("answered");
    }
}
