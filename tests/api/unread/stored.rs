//! Stored tallies: a restart goes on from them, and none is used whose basis has changed.

use rand::RngExt as _;

use super::{
    model::{Model, rng},
    *,
};

/// More texts than from which a tally is stored, and fewer than a new count has.
const TEXTS: u64 = 70;

/// The number of random steps. With [`TEXTS`], a new count reaches all of them.
const STEPS: usize = 24;

/// Stores all tallies that are worth it, and restarts the server, which forgets those in memory.
async fn store_and_restart(server: &mut TestServer) {
    let app = server.app();
    // The first search clears the marks of the looks before it.
    app.push.find_quiet_tallies();
    app.push.find_quiet_tallies();
    app.push.store_tallies(&app.rooms).await.expect("stored");
    server.restart().await;
}

both_engines! {
    async fn a_stored_count_is_not_used_when_its_basis_has_changed(server: TestServer) {
        let mut server = server;
        let (alice, bob, room) = scene(&server).await;
        let mut sent = Vec::new();
        for number in 0..TEXTS {
            let content = if number == 10 { mention(&alice, "you") } else { text("there is cake") };
            sent.push(bob.send(&room, "m.room.message", &number.to_string(), content).await);
        }
        let badge = async || unread(&alice.sync(None).await, &room);
        assert_eq!(badge().await, Some((TEXTS, 1)));
        store_and_restart(&mut server).await;
        assert_eq!(badge().await, Some((TEXTS, 1)));

        // Receipts, and redactions of events that are counted.
        read(&alice, &room, "m.read", &sent[2], None).await;
        store_and_restart(&mut server).await;
        assert_eq!(badge().await, Some((TEXTS - 3, 1)));
        server.restart().await;
        bob.put(&v3(["rooms", &room, "redact", &sent[10], "r"]), json!({})).await.ok();
        server.restart().await;
        assert_eq!(badge().await, Some((TEXTS - 4, 0)));

        // Rules.
        let highlight = json!(["notify", { "set_tweak": "highlight" }]);
        rule(&alice, "content", "cake", json!({ "pattern": "cake", "actions": highlight })).await;
        server.restart().await;
        assert_eq!(badge().await, Some((TEXTS - 4, TEXTS - 4)));
        store_and_restart(&mut server).await;
        rule(&alice, "content", "cake", json!({ "pattern": "cake", "actions": [] })).await;
        server.restart().await;
        assert_eq!(badge().await, Some((0, 0)));
        alice.delete(&v3(["pushrules", "global", "content", "cake"]), json!({})).await.ok();
        assert_eq!(badge().await, Some((TEXTS - 4, 0)));

        // Ignored users.
        store_and_restart(&mut server).await;
        let list = v3(["user", &alice.user_id, "account_data", "m.ignored_user_list"]);
        alice.put(&list, json!({ "ignored_users": { &bob.user_id: {} } })).await.ok();
        server.restart().await;
        assert_eq!(badge().await, Some((0, 0)));
        alice.put(&list, json!({ "ignored_users": {} })).await.ok();
        assert_eq!(badge().await, Some((TEXTS - 4, 0)));

        // New events, also from the user, and the redaction of one of those.
        store_and_restart(&mut server).await;
        bob.send(&room, "m.room.message", "after", mention(&alice, "you")).await;
        server.restart().await;
        assert_eq!(badge().await, Some((TEXTS - 3, 1)));
        let answer = alice.send_text(&room, "answer", "yes").await;
        server.restart().await;
        assert_eq!(badge().await, Some((0, 0)));
        alice.put(&v3(["rooms", &room, "redact", &answer, "s"]), json!({})).await.ok();
        server.restart().await;
        assert_eq!(badge().await, Some((TEXTS - 3, 1)));

        // Another stay.
        store_and_restart(&mut server).await;
        alice.leave(&room).await;
        alice.join(&room).await;
        server.restart().await;
        assert_eq!(badge().await, Some((0, 0)));
    }

    async fn a_redacted_name_is_not_found_by_a_stored_count(server: TestServer) {
        let mut server = server;
        let (alice, bob, room) = scene(&server).await;
        let profile = v3(["profile", &alice.user_id, "displayname"]);
        alice.put(&profile, json!({ "displayname": "Ali Baba" })).await.ok();
        for number in 0..TEXTS {
            bob.send_text(&room, &number.to_string(), "Ali Baba!").await;
        }
        assert_eq!(unread(&alice.sync(None).await, &room), Some((TEXTS, TEXTS)));
        store_and_restart(&mut server).await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((TEXTS, TEXTS)));
        let event_id = member_event(&alice, &room).await;
        bob.put(&v3(["rooms", &room, "redact", &event_id, "r"]), json!({})).await.ok();
        server.restart().await;
        assert_eq!(unread(&alice.sync(None).await, &room), Some((TEXTS, 0)));
    }

    async fn a_stored_count_keeps_what_a_new_one_would_leave_out(server: TestServer) {
        let mut server = server;
        let (alice, bob, room) = scene(&server).await;
        let start = alice.sync(None).await;
        let sent = sabha::push::unread::COLD_EVENTS as u64 + 20;
        for number in 0..sent {
            bob.send_text(&room, &number.to_string(), "hello").await;
        }
        let news = alice.sync(next(&start)).await;
        assert_eq!(unread(&news, &room), Some((sent, 0)));
        store_and_restart(&mut server).await;
        bob.send_text(&room, "after", "hello").await;
        assert_eq!(unread(&alice.sync(next(&news)).await, &room), Some((sent + 1, 0)));
    }

    async fn a_badge_is_what_counting_everything_gives_with_stored_counts(server: TestServer) {
        let mut server = server;
        let mut rng = rng();
        let (alice, bob, room) = scene(&server).await;
        let mut model = Model::begin(&bob, &room, TEXTS).await;
        for step in 0..STEPS {
            model.act(step, &alice, &bob, &room, &mut rng).await;
            if rng.random_ratio(1, 2) {
                let fresh = alice.sync_with(None, &with_threads()).await;
                assert_eq!(model.shown(&fresh, &room), model.all(), "after step {step}");
            }
            match rng.random_range(0..6) {
                0 => store_and_restart(&mut server).await,
                1 => server.restart().await,
                _ => {}
            }
        }
        server.restart().await;
        let fresh = alice.sync_with(None, &with_threads()).await;
        assert_eq!(model.shown(&fresh, &room), model.all(), "after a restart");
    }
}
