//! Room keys in a backup: which of two stays, and how many there are.

use std::collections::HashMap;

use ruma::{UInt, serde::Raw};
use serde_json::value::RawValue;

use super::{BackupError, live_version};
use crate::{
    keys::{Keys, validate},
    store::{
        Conn, Error, Position, Row, Transaction, UserNid,
        committer::insert_rows,
        key_backup::{self, KEY_BACKUP_SESSION, Part, RankRow},
    },
};

/// Room keys in one request. Clients send a few hundred.
pub const MAX_SESSIONS_PER_PUT: usize = 2_000;

/// Room keys in one version of a backup.
const MAX_SESSIONS: i64 = 1_000_000;

/// Size of one encrypted room key; today's take a kilobyte.
const MAX_SESSION_BYTES: usize = 64 * 1024;

/// Length of a session ID.
const MAX_SESSION_ID_BYTES: usize = 255;

/// What a room key is worth, compared with another for the same session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank {
    is_verified: bool,
    first_message_index: i64,
    forwarded_count: i64,
}

impl Rank {
    /// The spec's rule for replacing a key. Of equals, the one that is there stays.
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
    /// Checks what a client sent. The encrypted part belongs to the algorithm; we only know that it is an object.
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
    /// Different after every change.
    pub etag: i64,
    /// Room keys in the version.
    pub count: i64,
}

struct PutKeys {
    user: UserNid,
    version: i64,
    keys: Vec<RoomKey>,
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
    /// [`BackupError::WrongVersion`] when `version` is not the current one; nothing is stored after any error.
    pub async fn put_backup_keys(
        &self,
        user: UserNid,
        version: i64,
        keys: Vec<RoomKey>,
    ) -> Result<Stored, BackupError> {
        if keys.len() > MAX_SESSIONS_PER_PUT {
            return Err(BackupError::TooMany { what: "room keys at once", limit: MAX_SESSIONS_PER_PUT as i64 });
        }
        self.db.committer().transact(PutKeys { user, version, keys }).await?
    }

    /// Deletes the room keys of this part of a version.
    ///
    /// # Errors
    /// [`BackupError::NoSuchVersion`].
    pub(crate) async fn delete_backup_keys(
        &self,
        user: UserNid,
        version: i64,
        part: Part,
    ) -> Result<Stored, BackupError> {
        self.db.committer().transact(DeleteKeys { user, version, part }).await?
    }
}

impl Transaction for PutKeys {
    type Output = Result<Stored, BackupError>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let Some(current) = key_backup::latest_version(conn, self.user).await? else {
            return Ok(Err(BackupError::NoSuchVersion));
        };
        if current.version != self.version {
            return Ok(Err(BackupError::WrongVersion { current: current.version }));
        }
        let ids: Vec<(&str, &str)> = self.keys.iter().map(|key| (&*key.room_id, &*key.session_id)).collect();
        let stored = key_backup::ranks(conn, self.user, self.version, &ids).await?;
        let ranks: HashMap<(&str, &str), Rank> =
            stored.iter().map(|row| ((&*row.room_id, &*row.session_id), row.into())).collect();
        let mut count = current.count;
        let mut rows: Vec<Row> = Vec::new();
        for key in &self.keys {
            match ranks.get(&(&*key.room_id, &*key.session_id)) {
                Some(stored) if !key.rank.is_better_than(*stored) => continue,
                Some(_) => {}
                None => count += 1,
            }
            rows.push(KEY_BACKUP_SESSION.row([
                self.user.into(),
                self.version.into(),
                key.room_id.clone().into(),
                key.session_id.clone().into(),
                key.rank.first_message_index.into(),
                key.rank.forwarded_count.into(),
                key.rank.is_verified.into(),
                key.json.clone().into(),
            ]));
        }
        if count > MAX_SESSIONS {
            return Ok(Err(BackupError::TooMany { what: "room keys in a backup", limit: MAX_SESSIONS }));
        }
        if rows.is_empty() {
            return Ok(Ok(Stored { etag: current.etag, count }));
        }
        let etag = current.etag + 1;
        insert_rows(conn, &rows).await?;
        key_backup::set_count(conn, self.user, self.version, etag, count).await?;
        Ok(Ok(Stored { etag, count }))
    }
}

impl Transaction for DeleteKeys {
    type Output = Result<Stored, BackupError>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let Some(row) = live_version(conn, self.user, self.version).await? else {
            return Ok(Err(BackupError::NoSuchVersion));
        };
        let deleted = key_backup::delete_sessions(conn, self.user, self.version, &self.part).await?;
        if deleted == 0 {
            return Ok(Ok(Stored { etag: row.etag, count: row.count }));
        }
        let stored = Stored { etag: row.etag + 1, count: row.count.saturating_sub_unsigned(deleted) };
        key_backup::set_count(conn, self.user, self.version, stored.etag, stored.count).await?;
        Ok(Ok(stored))
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
        // Verified wins over everything else.
        assert!(rank(true, 9, 9).is_better_than(stored));
        assert!(!stored.is_better_than(rank(true, 9, 9)));
        // Then the lower first message.
        assert!(rank(false, 4, 9).is_better_than(stored));
        assert!(!rank(false, 6, 0).is_better_than(stored));
        // Then fewer forwards.
        assert!(rank(false, 5, 4).is_better_than(stored));
        assert!(!rank(false, 5, 6).is_better_than(stored));
        // Of equals, the stored one.
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
