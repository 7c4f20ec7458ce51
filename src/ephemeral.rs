//! Ephemeral data: read receipts, typing and presence.
//!
//! Promises: a receipt is answered after its commit and never moves backwards. Typing and presence are in memory only
//! and end by themselves. A sync without changes costs one comparison here, whatever the size of the room.
//!
//! Reading order: [`receipts`], [`typing`], [`presence`]. [`run`] is the only task that ends expired typing and
//! presence.

pub mod presence;
pub mod receipts;
pub mod typing;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::{presence::Presence, receipts::Receipts, typing::Typing};
use crate::{
    account_data::AccountData,
    bus::Bus,
    clock::Clock,
    memory::budget::Budget,
    room::Rooms,
    store::{Database, ids::lock},
};

/// The service of receipts, typing and presence.
pub struct Ephemeral {
    pub(crate) db: Arc<Database>,
    pub(crate) bus: Arc<Bus>,
    pub(crate) clock: Clock,
    pub(crate) data: Arc<AccountData>,
    receipts: Arc<Receipts>,
    typing: Arc<Mutex<Typing>>,
    presence: Arc<Presence>,
    /// Wakes the task when something may now expire earlier than the task waits for.
    sooner: Notify,
}

impl Ephemeral {
    pub fn new(
        db: Arc<Database>,
        bus: Arc<Bus>,
        clock: Clock,
        data: Arc<AccountData>,
        config: &crate::config::Presence,
        budget: &Budget,
    ) -> Self {
        let receipts = Arc::new(Receipts::new(db.committer().published(), budget));
        db.committer().remember(Arc::<Receipts>::clone(&receipts));
        let presence = Arc::new(Presence::new(config.enabled, clock.clone()));
        let typing = Arc::new(Mutex::new(Typing::default()));
        bus.on_departure({
            let (typing, clock) = (Arc::clone(&typing), clock.clone());
            move |bus, user, room| typing::end(&typing, bus, &clock, user, room)
        });
        Self { db, bus, clock, data, receipts, typing, presence, sooner: Notify::new() }
    }

    /// Converts a client's number for this start of the server. A number from another start counts as 0, so everything
    /// is new.
    fn known(&self, since: u64) -> u64 {
        if since > self.bus.ephemeral() { 0 } else { since }
    }

    /// The time when the next entry expires, in milliseconds since 1970.
    fn next_due(&self) -> Option<i64> {
        let typing = lock(&self.typing).next_due();
        [typing, self.presence.next_due()].into_iter().flatten().min()
    }

    /// Ends expired typing and presence, and wakes the users who see it.
    pub async fn expire(&self, rooms: &Rooms) {
        let number = |room| self.bus.next_ephemeral_in(room);
        let ended = lock(&self.typing).expire(self.clock.now_ms(), number);
        for (room, number) in ended {
            self.bus.wake_room_ephemeral(room, number);
        }
        for (user, number) in self.presence.expire(|| self.bus.next_ephemeral()) {
            self.announce(rooms, user, number).await;
        }
    }
}

/// Ends typing and presence on time, until the server stops. The server runs exactly one such task.
pub async fn run(ephemeral: &Ephemeral, rooms: &Rooms, stopping: &CancellationToken) {
    loop {
        let due = async {
            match ephemeral.next_due() {
                Some(at) => {
                    let wait_ms = at.saturating_sub(ephemeral.clock.now_ms()).max(0);
                    tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = ephemeral.sooner.notified() => {}
            () = due => ephemeral.expire(rooms).await,
        }
    }
}
