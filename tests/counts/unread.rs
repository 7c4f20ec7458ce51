//! The cost of unread counts: none for a message, none at rest, and few statements after a restart.

use super::*;

/// The number of rooms of the account that restarts.
const ROOMS: usize = 20;

/// More messages than from which a tally is stored.
const MESSAGES: usize = 70;

impl Server {
    /// Stores the tallies that should be. Returns the numbers of rows and statements.
    async fn store_tallies(&self) -> (u64, u64) {
        let counters = self.app.db.counters();
        let (rows, statements) = (counters.rows_written(), counters.statements());
        self.app.push.store_tallies(&self.app.rooms).await.expect("stored");
        (counters.rows_written() - rows, counters.statements() - statements)
    }
}

#[tokio::test]
async fn tallies_are_stored_when_nobody_looks_at_them_any_more() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = server.room(&alice).await;
    server.app.rooms.join(&bob, &room, None).await.expect("joined");
    let mut since = server.sync(&bob, None).await;
    // The first message also writes the words that it is the first to use.
    server.send(&alice, &room, MESSAGES).await;
    for txn in 0..MESSAGES {
        let before = server.app.db.counters().rows_written();
        server.send(&alice, &room, txn).await;
        since = server.sync(&bob, Some(since)).await;
        assert_eq!(server.store_tallies().await, (0, 0), "bob is looking");
        assert_eq!(server.app.db.counters().rows_written() - before, ROWS_PER_MESSAGE, "rows of message {txn}");
    }
    server.app.push.find_quiet_tallies();
    assert_eq!(server.store_tallies().await, (0, 0), "bob has just looked");
    server.app.push.find_quiet_tallies();
    let (rows, statements) = server.store_tallies().await;
    assert_eq!(rows, 1);
    assert!(statements > 0);
    for _ in 0..2 {
        server.app.push.find_quiet_tallies();
        assert_eq!(server.store_tallies().await, (0, 0), "nothing has changed");
    }
}

#[tokio::test]
async fn the_stored_tallies_of_many_rooms_are_read_at_once() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for _ in 0..ROOMS {
        let room = server.room(&alice).await;
        server.app.rooms.join(&bob, &room, None).await.expect("joined");
        for txn in 0..MESSAGES {
            server.send(&alice, &room, txn).await;
        }
    }
    let first_sync = async |server: &Server| {
        let before = server.app.db.counters().statements();
        server.sync(&bob, None).await;
        server.app.db.counters().statements() - before
    };
    let server = server.restart().await;
    let counting = first_sync(&server).await;
    assert_eq!(server.store_tallies().await.0, ROOMS as u64, "they took long");
    let server = server.restart().await;
    let stored = first_sync(&server).await;
    println!("{counting} statements for a first sync that counts {ROOMS} rooms, {stored} with stored counts");
    assert!(stored < 2 * ROOMS as u64, "{stored} statements: what the rooms show is read for many at once");
    assert!(stored + ROOMS as u64 <= counting, "{stored} statements, and {counting} without stored counts");
    assert_eq!(server.store_tallies().await, (0, 0), "nothing was counted anew");
}
