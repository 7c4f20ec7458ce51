//! Changes of device lists: which users must fetch whose keys again.
//!
//! Every change of a user's devices or keys stores a row with it, through [`DeviceChange`], and wakes the users who
//! share a room. The latest changes are also kept in memory, so that a `/sync` without changes needs no query.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
};

use ruma::OwnedUserId;

use super::Keys;
use crate::{
    bus::Bus,
    store::{
        Conn, Error, Position, RoomNid, Row, UserNid, device_keys, devices::DeviceChangeColumns, ids::lock, log::Touch,
    },
};

/// Changes kept in memory: some minutes of a busy server. Clients that were away longer cost a query.
const MAX_LOGGED: usize = 4096;

/// Maximum number of changes in one `/sync`. A client that missed more asks for everyone's keys anyway.
pub const MAX_CHANGED_USERS: usize = 20_000;

/// Tells whether users see each other's device lists.
pub trait SharedRooms: Sync {
    /// Returns whether both users are joined to one room.
    fn share_a_room(&self, a: UserNid, b: UserNid) -> impl Future<Output = Result<bool, Error>> + Send;
}

#[derive(Debug)]
struct Log {
    /// All changes after this position are in `changes`.
    complete_from: Position,
    changes: VecDeque<(Position, UserNid)>,
}

/// The latest changes, in the order of their commits.
#[derive(Debug)]
pub(super) struct Changes {
    log: Mutex<Log>,
    bus: Arc<Bus>,
}

impl Changes {
    pub(super) fn new(bus: Arc<Bus>, published: Position) -> Self {
        Self { log: Mutex::new(Log { complete_from: published, changes: VecDeque::new() }), bus }
    }

    pub(super) fn add(&self, position: Position, users: &[UserNid]) {
        let mut log = lock(&self.log);
        for user in users {
            if log.changes.len() == MAX_LOGGED
                && let Some((dropped, _)) = log.changes.pop_front()
            {
                log.complete_from = dropped;
            }
            log.changes.push_back((position, *user));
        }
    }

    /// The users whose lists changed in (`since`, `upto`]; `None` if memory does not reach back that far.
    fn between(&self, since: Position, upto: Position) -> Option<BTreeSet<UserNid>> {
        let log = lock(&self.log);
        if since < log.complete_from {
            return None;
        }
        let start = log.changes.partition_point(|(position, _)| *position <= since);
        Some(log.changes.range(start..).take_while(|(position, _)| *position <= upto).map(|(_, user)| *user).collect())
    }
}

/// A change of device lists on its way to the database. Add [`Self::rows`] to the rows of the transaction, and call
/// [`Self::committed`] after the commit.
#[derive(Debug, Clone)]
pub struct DeviceChange {
    changes: Arc<Changes>,
    users: Vec<UserNid>,
    rooms: Vec<RoomNid>,
    /// The user who makes the change. All their devices are notified.
    owner: UserNid,
}

impl DeviceChange {
    pub(super) fn new(changes: Arc<Changes>, user: UserNid, rooms: Vec<RoomNid>) -> Self {
        Self { changes, users: vec![user], rooms, owner: user }
    }

    /// Copies the change for the lists of `users`, instead of the user it was made for.
    pub(super) fn of_users(&self, users: Vec<UserNid>) -> Self {
        Self { users, ..self.clone() }
    }

    /// Touches the lists, and returns the rows that store the change.
    pub fn rows(&self, conn: &mut Conn<'_>, position: Position) -> Vec<Row> {
        for user in &self.users {
            conn.touch(Touch::DeviceList { user: *user });
        }
        self.users.iter().map(|user| DeviceChangeColumns { user_nid: *user, pos: position }.row()).collect()
    }

    /// Records the change. Must be called after the commit, before its position is visible.
    pub fn committed(&self, position: Position) {
        self.changes.add(position, &self.users);
        if self.users.is_empty() {
            return;
        }
        self.changes.bus.mark_user(self.owner, position);
        self.changes.bus.mark_members(&self.rooms, position);
    }
}

impl Keys {
    /// The users whose device lists changed in (`since`, `upto`] and who share a room with `user`, and `user` itself.
    /// Needs no query while nothing has changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn device_lists_changed(
        &self,
        rooms: &impl SharedRooms,
        user: UserNid,
        since: Position,
        upto: Position,
    ) -> Result<Vec<OwnedUserId>, Error> {
        let changed = match self.changes.between(since, upto) {
            Some(changed) => changed,
            None => {
                let mut reader = self.db.read().await?;
                // A row holds a user's last change only. If that is after `upto`, it may hide an earlier one. Reporting
                // it too early is harmless.
                let rows = device_keys::changes_after(&mut reader.conn(), since, MAX_CHANGED_USERS).await?;
                rows.into_iter().map(|(_, user)| user).collect()
            }
        };
        let mut visible = Vec::new();
        for other in changed {
            if other == user || rooms.share_a_room(user, other).await? {
                visible.push(self.db.user_by_nid(other).await?.user_id.clone());
            }
        }
        Ok(visible)
    }
}

impl SharedRooms for crate::room::Rooms {
    async fn share_a_room(&self, a: UserNid, b: UserNid) -> Result<bool, Error> {
        Self::share_a_room(self, a, b).await
    }
}
