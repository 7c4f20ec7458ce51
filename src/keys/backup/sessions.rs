//! Room keys in a backup: storing the better of two, and counting them.

use std::collections::HashMap;

use ruma::{UInt, serde::Raw};
use serde_json::value::RawValue;

use super::{BackupError, MAX_BACKUP_BYTES, live_version};
use crate::{
    keys::{Keys, validate},
    store::{
        Conn, Error, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        key_backup::{self, KeyBackupSessionColumns, Part, RankRow},
    },
};

/// Maximum number of room keys in one request. Clients send a few hundred.
pub const MAX_SESSIONS_PER_PUT: usize = 2_000;

/// Room keys stored or deleted in one commit. All other writers wait for it.
const SESSIONS_PER_COMMIT: usize = 200;

/// Maximum number of room keys in one version of a backup.
const MAX_SESSIONS: i64 = 1_000_000;

/// Maximum size of one encrypted room key. Today's take a kilobyte.
const MAX_SESSION_BYTES: usize = 64 * 1024;

/// Maximum length of a session ID.
const MAX_SESSION_ID_BYTES: usize = 255;

/// The rank of a room key among those for the same session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank {
    is_verified: bool,
    first_message_index: i64,
    forwarded_count: i64,
}

impl Rank {
    /// Applies the spec's rule for replacing a key. Of two equal keys, the stored one stays.
    fn is_better_than(self, stored: Self) -> bool {
        let order = |rank: Self| (!rank.is_verified, rank.first_message_index, rank.forwarded_count);
        order(self) < order(stored)
    }
}

impl From<&RankRow> for Rank {
    fn from(row: &RankRow) -> Self {
        Self {
            is_verified: row.is_verified,
            first_message_index: row.first_message_index,
            forwarded_count: row.forwarded_count,
        }
    }
}

/// A room key, checked.
#[derive(Debug, Clone)]
pub struct RoomKey {
    room_id: String,
    session_id: String,
    rank: Rank,
    json: String,
}

#[derive(serde::Deserialize)]
struct KeyData<'a> {
    first_message_index: UInt,
    forwarded_count: UInt,
    is_verified: bool,
    #[serde(borrow)]
    session_data: &'a RawValue,
}

impl RoomKey {
    /// Checks a room key that a client sent. Its encrypted part depends on the algorithm, so we only check that it is
    /// an object.
    ///
    /// # Errors
    /// [`BackupError::Malformed`] and [`BackupError::TooLarge`].
    pub fn check<T>(room_id: &ruma::RoomId, session_id: &str, raw: &Raw<T>) -> Result<Self, BackupError> {
        let json = raw.json().get();
        if json.len() > MAX_SESSION_BYTES {
            return Err(BackupError::TooLarge { what: "a room key", limit: MAX_SESSION_BYTES });
        }
        if session_id.len() > MAX_SESSION_ID_BYTES {
            return Err(BackupError::TooLarge { what: "a session ID", limit: MAX_SESSION_ID_BYTES });
        }
        if session_id.is_empty() {
            return Err(BackupError::Malformed("a session ID cannot be empty".to_owned()));
        }
        if !validate::is_plain(session_id) || !validate::is_plain(room_id.as_str()) {
            return Err(BackupError::Malformed("room and session ID cannot have control characters".to_owned()));
        }
        let data: KeyData<'_> =
            serde_json::from_str(json).map_err(|error| BackupError::Malformed(error.to_string()))?;
        if !data.session_data.get().starts_with('{') {
            return Err(BackupError::Malformed("session_data must be an object".to_owned()));
        }
        let rank = Rank {
            is_verified: data.is_verified,
            first_message_index: data.first_message_index.into(),
            forwarded_count: data.forwarded_count.into(),
        };
        Ok(Self { room_id: room_id.to_string(), session_id: session_id.to_owned(), rank, json: json.to_owned() })
    }
}

/// A version after a change of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Changes with every change of the keys.
    pub etag: i64,
    /// Room keys in the version.
    pub count: i64,
}

/// Room keys that are new or better than the stored ones, and the version's counts with them.
struct PutKeys {
    user: UserNid,
    version: i64,
    rows: Vec<Row>,
    stored: Stored,
    bytes: i64,
}

struct DeleteKeys {
    user: UserNid,
    version: i64,
    part: Part,
}

impl Keys {
    /// Stores room keys in the current version, each unless a better one is there.
    ///
    /// # Errors
    /// [`BackupError::WrongVersion`] when `version` is not the current one. Some of the keys may be stored after
    /// [`BackupError::Full`], [`BackupError::TooMany`] and [`BackupError::Storage`].
    pub async fn put_backup_keys(
        &self,
        user: UserNid,
        version: i64,
        keys: Vec<RoomKey>,
    ) -> Result<Stored, BackupError> {
        if keys.len() > MAX_SESSIONS_PER_PUT {
            return Err(BackupError::TooMany { what: "room keys at once", limit: MAX_SESSIONS_PER_PUT as i64 });
        }
        // All other changes of the user's backups wait for this turn, so the data read here is still current at the
        // commit. The commits are few ([`MAX_SESSIONS_PER_PUT`]).
        let _turn = self.turns.take(user).await?;
        let mut chunks = keys.chunks(SESSIONS_PER_COMMIT);
        let mut stored = self.put_some(user, version, chunks.next().unwrap_or_default()).await?;
        for keys in chunks {
            stored = self.put_some(user, version, keys).await?;
        }
        Ok(stored)
    }

    async fn put_some(&self, user: UserNid, version: i64, keys: &[RoomKey]) -> Result<Stored, BackupError> {
        let mut reader = self.db.read().await?;
        let mut conn = reader.conn();
        let current = key_backup::latest_version(&mut conn, user).await?.ok_or(BackupError::NoSuchVersion)?;
        if current.version != version {
            return Err(BackupError::WrongVersion { current: current.version });
        }
        let ids: Vec<(&str, &str)> = keys.iter().map(|key| (&*key.room_id, &*key.session_id)).collect();
        let ranks = key_backup::ranks(&mut conn, user, version, &ids).await?;
        let ranks: HashMap<(&str, &str), &RankRow> =
            ranks.iter().map(|row| ((&*row.room_id, &*row.session_id), row)).collect();
        let (mut count, mut grown) = (current.count, 0);
        let mut rows: Vec<Row> = Vec::new();
        for key in keys {
            match ranks.get(&(&*key.room_id, &*key.session_id)) {
                Some(stored) if !key.rank.is_better_than((*stored).into()) => continue,
                Some(stored) => grown -= stored.bytes,
                None => count += 1,
            }
            grown += key.size_bytes();
            rows.push(key.row(user, version));
        }
        if count > MAX_SESSIONS {
            return Err(BackupError::TooMany { what: "room keys in a backup", limit: MAX_SESSIONS });
        }
        if grown > 0 && key_backup::totals(&mut conn, user).await?.bytes + grown > MAX_BACKUP_BYTES {
            return Err(BackupError::Full);
        }
        drop(reader);
        if rows.is_empty() {
            return Ok(Stored { etag: current.etag, count });
        }
        let stored = Stored { etag: current.etag + 1, count };
        let transaction = PutKeys { user, version, rows, stored, bytes: current.bytes + grown };
        self.db.committer().transact(transaction).await?
    }

    /// Deletes the room keys of this part of a version. Other changes may come between its commits, since there may be
    /// thousands.
    ///
    /// # Errors
    /// [`BackupError::NoSuchVersion`]. Some of the keys may be deleted after [`BackupError::Storage`] and
    /// [`BackupError::TooManyWaiting`].
    pub(crate) async fn delete_backup_keys(
        &self,
        user: UserNid,
        version: i64,
        part: Part,
    ) -> Result<Stored, BackupError> {
        loop {
            let _turn = self.turns.take(user).await?;
            let transaction = DeleteKeys { user, version, part: part.clone() };
            let (stored, deleted) = self.db.committer().transact(transaction).await??;
            if deleted < SESSIONS_PER_COMMIT as i64 {
                return Ok(stored);
            }
        }
    }
}

impl RoomKey {
    /// The bytes that the key counts towards [`MAX_BACKUP_BYTES`].
    fn size_bytes(&self) -> i64 {
        (self.room_id.len() + self.session_id.len() + self.json.len()) as i64
    }

    fn row(&self, user: UserNid, version: i64) -> Row {
        KeyBackupSessionColumns {
            user_nid: user,
            version,
            room_id: self.room_id.clone().into(),
            session_id: self.session_id.clone().into(),
            first_message_index: self.rank.first_message_index,
            forwarded_count: self.rank.forwarded_count,
            is_verified: self.rank.is_verified,
            bytes: self.size_bytes(),
            json: self.json.clone().into(),
        }
        .row()
    }
}

impl Transaction for PutKeys {
    type Output = Result<Stored, BackupError>;

    fn rows(&self) -> usize {
        self.rows.len()
    }

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        // Deactivating an account deletes its backups without waiting for a turn.
        if live_version(conn, self.user, self.version).await?.is_none() {
            return Ok(Err(BackupError::NoSuchVersion));
        }
        insert_rows(conn, &self.rows).await?;
        key_backup::set_count(conn, self.user, self.version, self.stored.etag, (self.stored.count, self.bytes)).await?;
        Ok(Ok(self.stored))
    }
}

impl Transaction for DeleteKeys {
    /// The version after the change, and the number of deleted keys.
    type Output = Result<(Stored, i64), BackupError>;

    fn rows(&self) -> usize {
        SESSIONS_PER_COMMIT
    }

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let Some(row) = live_version(conn, self.user, self.version).await? else {
            return Ok(Err(BackupError::NoSuchVersion));
        };
        let limit = SESSIONS_PER_COMMIT as i64;
        let (deleted, bytes) = key_backup::delete_some(conn, self.user, self.version, &self.part, limit).await?;
        if deleted == 0 {
            return Ok(Ok((Stored { etag: row.etag, count: row.count }, 0)));
        }
        let stored = Stored { etag: row.etag + 1, count: (row.count - deleted).max(0) };
        let left = (stored.count, (row.bytes - bytes).max(0));
        key_backup::set_count(conn, self.user, self.version, stored.etag, left).await?;
        Ok(Ok((stored, deleted)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(is_verified: bool, first_message_index: i64, forwarded_count: i64) -> Rank {
        Rank { is_verified, first_message_index, forwarded_count }
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#backup-algorithm-mmegolm_backupv1curve25519-aes-sha2>
    #[test]
    fn the_better_key_stays() {
        let stored = rank(false, 5, 5);
        // Verified keys win over all others.
        assert!(rank(true, 9, 9).is_better_than(stored));
        assert!(!stored.is_better_than(rank(true, 9, 9)));
        // Then the lower index of the first message wins.
        assert!(rank(false, 4, 9).is_better_than(stored));
        assert!(!rank(false, 6, 0).is_better_than(stored));
        // Then the lower number of forwards wins.
        assert!(rank(false, 5, 4).is_better_than(stored));
        assert!(!rank(false, 5, 6).is_better_than(stored));
        // Of two equal keys, the stored one stays.
        assert!(!stored.is_better_than(stored));
    }

    #[test]
    fn a_room_key_must_have_its_fields() {
        let check = |json: &str| {
            let raw: Raw<()> = Raw::from_json_string(json.to_owned()).expect("the tests write JSON");
            RoomKey::check(ruma::room_id!("!r:example.org"), "s", &raw).is_ok()
        };
        let key = |index: &str, verified: &str, data: &str| {
            check(&format!(
                r#"{{"first_message_index":{index},"forwarded_count":0,"is_verified":{verified},"session_data":{data}}}"#
            ))
        };
        assert!(key("0", "true", "{}"));
        assert!(!key("-1", "true", "{}"));
        assert!(!key("0.5", "true", "{}"));
        assert!(!key("0", "1", "{}"));
        assert!(!key("0", "true", "\"text\""));
        assert!(!check("{}"));
        assert!(!check("[]"));
    }
}
