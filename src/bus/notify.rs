//! The notifier: the task that wakes parked requests, so that the committer need not.
//!
//! The committer only says that a position is visible ([`Bus::published`]). The notifier then wakes the users who were
//! marked; it sleeps on if there are none. Those whom only receipts concern are woken a little later, all at once: a
//! receipt is worth no hurry, and everyone in a room reads a new message at about the same time.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Bus, LiveUser, live::Urgency};
use crate::store::{Committer, Position, ids::lock};

/// The time for which receipts wait for others. Nobody notices it, and a room of active readers is woken some times a
/// second instead of for each of them.
const RECEIPTS_WAIT: Duration = Duration::from_millis(50);

/// The users who are to be woken.
#[derive(Debug, Default)]
pub(super) struct ToWake {
    now: Mutex<Vec<Arc<LiveUser>>>,
    for_receipts: Mutex<Vec<Arc<LiveUser>>>,
    published: Notify,
}

impl ToWake {
    fn list(&self, urgency: Urgency) -> &Mutex<Vec<Arc<LiveUser>>> {
        match urgency {
            Urgency::Now => &self.now,
            Urgency::Receipts => &self.for_receipts,
        }
    }

    pub(super) fn add(&self, urgency: Urgency, mut users: Vec<Arc<LiveUser>>) {
        if !users.is_empty() {
            lock(self.list(urgency)).append(&mut users);
        }
    }

    /// Wakes the users of a list. `visible` is the visible position.
    fn wake(&self, urgency: Urgency, visible: Position) {
        let mut users = std::mem::take(&mut *lock(self.list(urgency)));
        users.retain(|live| {
            // In this order: a mark that comes now adds the user again.
            if !live.take_due(urgency) {
                return false;
            }
            live.wake();
            // A commit whose position is not visible yet has marked them too. They must be woken again.
            live.latest() > visible && live.is_newly_due(urgency)
        });
        self.add(urgency, users);
    }
}

impl Bus {
    /// Says that a position is visible. Its users are woken by the notifier, which sleeps on if there are none.
    pub fn published(&self) {
        if !lock(&self.to_wake.now).is_empty() || self.has_receipts() {
            self.to_wake.published.notify_one();
        }
    }

    /// Wakes everyone who was marked, except for receipts. `visible` is the visible position.
    pub fn wake_marked(&self, visible: Position) {
        let _span = tracing::debug_span!("bus.wake").entered();
        self.to_wake.wake(Urgency::Now, visible);
    }

    /// Wakes everyone who was marked for a position that is published by now, except for receipts. Returns that position.
    fn wake_published(&self, published: impl Fn() -> Position) -> Position {
        // Read first: a user who was marked for a later position stays in the list.
        let visible = published();
        self.wake_marked(visible);
        // A commit that ends while its users are out of the list finds it empty, and tells nobody. They are in it again now.
        if published() > visible {
            self.published();
        }
        visible
    }

    /// Wakes everyone who was marked for receipts only.
    pub fn wake_for_receipts(&self, visible: Position) {
        self.to_wake.wake(Urgency::Receipts, visible);
    }

    fn has_receipts(&self) -> bool {
        !lock(&self.to_wake.for_receipts).is_empty()
    }
}

/// Wakes users when positions become visible, until the committer ends.
pub async fn run(bus: &Bus, committer: &Committer) {
    let mut ended = pin!(committer.ended());
    let mut receipts_due: Option<Instant> = None;
    loop {
        let due = async {
            match receipts_due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut ended => return bus.wake_all(),
            () = bus.to_wake.published.notified() => {}
            () = due => {}
        }
        let visible = bus.wake_published(|| committer.published());
        if receipts_due.is_some_and(|at| at <= Instant::now()) {
            bus.wake_for_receipts(visible);
            receipts_due = None;
        }
        if receipts_due.is_none() && bus.has_receipts() {
            receipts_due = Some(Instant::now() + RECEIPTS_WAIT);
        }
        committer.woken().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::{RoomNid, UserNid};

    const USER: UserNid = UserNid(1);

    /// A bus with a live user who was woken for everything up to now.
    fn bus() -> Bus {
        let bus = Bus::default();
        bus.live(USER, Position::BEFORE_ALL, 0);
        bus.wake_marked(Position::BEFORE_ALL);
        bus
    }

    /// Returns whether the notifier was told, and takes the word.
    fn is_told(bus: &Bus) -> bool {
        pin!(bus.to_wake.published.notified()).enable()
    }

    #[test]
    fn the_notifier_sleeps_on_when_nobody_is_concerned() {
        let bus = bus();
        bus.published();
        assert!(!is_told(&bus));
        bus.mark_user(USER, Position(1));
        bus.published();
        assert!(is_told(&bus));
        bus.wake_marked(Position(1));
        bus.mark_receipts(USER, RoomNid(1), false, Position(2));
        bus.published();
        assert!(is_told(&bus), "receipts wait, but not for the next message");
    }

    #[test]
    fn a_commit_that_ends_while_its_users_are_woken_for_the_one_before_wakes_them_again() {
        let bus = bus();
        bus.mark_user(USER, Position(2));
        // The position becomes visible after the first look at it. Its users are out of the list then, and nobody is told.
        let published = Cell::new(Position(1));
        assert_eq!(bus.wake_published(|| published.replace(Position(2))), Position(1));
        assert!(is_told(&bus));
        bus.wake_published(|| Position(2));
        assert!(!is_told(&bus), "everyone was woken");
    }
}
