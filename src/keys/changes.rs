//! Changes of device lists: which users must fetch whose keys again.
//!
//! Every change of a user's devices or keys stores a row with it ([`list_change`]), and wakes the users who share a room. The
//! latest changes are also kept in memory, so that a `/sync` without changes needs no query.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Mutex,
};

use ruma::OwnedUserId;

use super::Keys;
use crate::store::{
    Conn, Error, Position, Row, UserNid, device_keys, devices::DeviceChangeColumns, ids::lock, log::Touch,
};

/// Changes kept in memory: some minutes of a busy server. Clients that were away longer cost a query.
const MAX_LOGGED: usize = 4096;

/// Maximum number of changes in one `/sync`. A client that missed more asks for everyone's keys anyway.
pub const MAX_CHANGED_USERS: usize = 20_000;

/// Tells whether users see each other's device lists.
pub trait SharedRooms: Sync {
    /// Returns whether both users are joined to one room, or were at `at`, a moment ago.
    fn share_a_room_since(
        &self,
        a: UserNid,
        b: UserNid,
        at: Position,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
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
}

impl Changes {
    /// No changes, of those after `started_at`.
    pub(super) fn new(started_at: Position) -> Self {
        Self { log: Mutex::new(Log { complete_from: started_at, changes: VecDeque::new() }) }
    }

    /// Forgets everything, and goes on with the changes after `upto`.
    pub(super) fn restart(&self, upto: Position) {
        let mut log = lock(&self.log);
        log.changes.clear();
        log.complete_from = upto.max(log.complete_from);
    }

    /// Adds the change of a user's list that was committed at `position`.
    pub(super) fn add(&self, position: Position, user: UserNid) {
        let mut log = lock(&self.log);
        if log.changes.len() == MAX_LOGGED
            && let Some((dropped, _)) = log.changes.pop_front()
        {
            log.complete_from = dropped;
        }
        log.changes.push_back((position, user));
    }

    /// Returns whether no list has certainly changed after `since`.
    fn none_since(&self, since: Position) -> bool {
        let log = lock(&self.log);
        log.complete_from <= since && log.changes.back().is_none_or(|(position, _)| *position <= since)
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

/// Touches a user's list, and returns the row that stores its change.
pub(super) fn list_change(conn: &mut Conn<'_>, user: UserNid, position: Position) -> Row {
    conn.touch(Touch::DeviceList { user });
    DeviceChangeColumns { user_nid: user, pos: position }.row()
}

impl Keys {
    /// Returns whether nobody's device list has certainly changed after `since`.
    pub fn no_device_list_changed(&self, since: Position) -> bool {
        self.memory.changes.none_since(since)
    }

    /// The users whose device lists changed in (`since`, `upto`] and who share a room with `user`, and `user` itself. A user who
    /// has left their common room after `upto` is among them: the next answer would not tell it if they are in again by then.
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
        let changed = match self.memory.changes.between(since, upto) {
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
            if other == user || rooms.share_a_room_since(user, other, upto).await? {
                visible.push(self.db.user_by_nid(other).await?.user_id.clone());
            }
        }
        Ok(visible)
    }
}

impl SharedRooms for crate::room::Rooms {
    async fn share_a_room_since(&self, a: UserNid, b: UserNid, at: Position) -> Result<bool, Error> {
        Self::share_a_room_since(self, a, b, at).await
    }
}
