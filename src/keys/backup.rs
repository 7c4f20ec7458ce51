//! Key backup: room keys that clients store with us, encrypted so that only they can read them.
//!
//! Promises: of two keys for one session the better one stays. Keys are written to the current version only. The number
//! of a deleted version is never used again. A large upload or deletion takes several commits, one after the other. If
//! it is interrupted, the client repeats it as a whole, which does not change the part that was done.

mod sessions;

use ruma::serde::Raw;
use serde_json::value::RawValue;

pub use self::sessions::{MAX_SESSIONS_PER_PUT, RoomKey, Stored};
use super::Keys;
use crate::{
    limit_exceeded::LimitExceeded,
    store::{
        Conn, Error, Position, Transaction, UserNid,
        committer::insert_rows,
        key_backup::{self, KeyBackupVersionColumns, Part, SessionRow, VersionRow},
        leftovers::Leftover,
    },
};

/// Maximum size of the public data of a version: a key and a few signatures.
pub const MAX_AUTH_DATA_BYTES: usize = 64 * 1024;

/// Maximum length of an algorithm's name.
pub const MAX_ALGORITHM_BYTES: usize = 255;

/// Maximum number of versions of one user, without deleted ones. Clients use one at a time.
pub const MAX_VERSIONS: i64 = 100;

/// Maximum bytes of all room keys of one user, in all versions. A key takes half a kilobyte to one, and a client reads
/// all of them in one answer.
pub const MAX_BACKUP_BYTES: i64 = 256 * 1024 * 1024;

/// Room keys read at once for an answer: typically a hundred kilobytes, and six megabytes at most.
pub(crate) const SESSIONS_PER_PAGE: usize = 100;

/// Why a request to a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no such backup")]
    NoSuchVersion,
    #[error("there is no such room key in the backup")]
    NoSuchKey,
    /// Keys go into the current version only.
    #[error("the current version of the backup is {current}")]
    WrongVersion { current: i64 },
    #[error("the algorithm of a backup cannot be changed")]
    OtherAlgorithm,
    #[error("the version in the body is not the one in the path")]
    OtherVersion,
    #[error("{0}")]
    Malformed(String),
    #[error("too many {what}: at most {limit}")]
    TooMany { what: &'static str, limit: i64 },
    #[error("{what} is too large: at most {limit} bytes")]
    TooLarge { what: &'static str, limit: usize },
    #[error("the backups of this account would take more than {MAX_BACKUP_BYTES} bytes; delete old versions")]
    Full,
    #[error(transparent)]
    TooManyWaiting(#[from] LimitExceeded),
    #[error("could not read or store the backup")]
    Storage(#[from] Error),
}

/// A version of a backup.
#[derive(Debug)]
pub struct Version {
    pub number: i64,
    /// `algorithm` and `auth_data`, as JSON.
    pub algorithm: Box<RawValue>,
    pub etag: i64,
    pub count: i64,
}

/// A version as the client describes it: its algorithm and the algorithm's public data.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
pub struct Algorithm {
    pub algorithm: String,
    auth_data: Box<RawValue>,
    /// The version's number, which clients repeat in the body of a change.
    #[serde(default, skip_serializing)]
    version: Option<String>,
}

impl Algorithm {
    /// Checks a version that a client sent.
    ///
    /// # Errors
    /// [`BackupError::Malformed`] and [`BackupError::TooLarge`].
    pub fn check<T>(raw: &Raw<T>) -> Result<Self, BackupError> {
        let algorithm: Self =
            serde_json::from_str(raw.json().get()).map_err(|error| BackupError::Malformed(error.to_string()))?;
        if algorithm.algorithm.len() > MAX_ALGORITHM_BYTES || !super::validate::is_plain(&algorithm.algorithm) {
            return Err(BackupError::TooLarge { what: "algorithm", limit: MAX_ALGORITHM_BYTES });
        }
        if algorithm.auth_data.get().len() > MAX_AUTH_DATA_BYTES {
            return Err(BackupError::TooLarge { what: "auth_data", limit: MAX_AUTH_DATA_BYTES });
        }
        if !algorithm.auth_data.get().starts_with('{') {
            return Err(BackupError::Malformed("auth_data must be an object".to_owned()));
        }
        Ok(algorithm)
    }
}

impl TryFrom<VersionRow> for Version {
    type Error = Error;

    fn try_from(row: VersionRow) -> Result<Self, Error> {
        let damaged = |error| Error::damaged("key backup", error);
        let auth_data = RawValue::from_string(row.auth_data).map_err(damaged)?;
        let algorithm = Algorithm { algorithm: row.algorithm, auth_data, version: None };
        let algorithm = serde_json::value::to_raw_value(&algorithm).map_err(damaged)?;
        Ok(Self { number: row.version, algorithm, etag: row.etag, count: row.count })
    }
}

/// Parses the number in a version's name. A name that is not such a number is an unknown version.
pub fn parse_version(version: &str) -> Result<i64, BackupError> {
    version.parse().ok().filter(|number: &i64| number.to_string() == version).ok_or(BackupError::NoSuchVersion)
}

/// Looks up a version that was not deleted.
pub(super) async fn live_version(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
) -> Result<Option<VersionRow>, Error> {
    Ok(key_backup::find_version(conn, user, version).await?.filter(|row| !row.deleted))
}

struct CreateVersion {
    user: UserNid,
    algorithm: Algorithm,
}

struct UpdateVersion {
    user: UserNid,
    version: i64,
    algorithm: Algorithm,
}

struct DeleteVersion {
    user: UserNid,
    version: i64,
}

impl Keys {
    /// Creates a version, which becomes the current one, and returns its number.
    ///
    /// # Errors
    /// [`BackupError::TooMany`] until an old version is deleted.
    pub async fn create_backup(&self, user: UserNid, algorithm: Algorithm) -> Result<i64, BackupError> {
        let _turn = self.turns.take(user).await?;
        self.db.committer().transact(CreateVersion { user, algorithm }).await?
    }

    /// The current version: the newest that was not deleted.
    ///
    /// # Errors
    /// [`BackupError::NoSuchVersion`] when there is no backup.
    pub async fn latest_backup(&self, user: UserNid) -> Result<Version, BackupError> {
        let row = key_backup::latest_version(&mut self.db.read().await?.conn(), user).await?;
        Ok(row.ok_or(BackupError::NoSuchVersion)?.try_into()?)
    }

    /// Looks up a version.
    ///
    /// # Errors
    /// [`BackupError::NoSuchVersion`], also when it was deleted.
    pub async fn backup(&self, user: UserNid, version: i64) -> Result<Version, BackupError> {
        let row = live_version(&mut self.db.read().await?.conn(), user, version).await?;
        Ok(row.ok_or(BackupError::NoSuchVersion)?.try_into()?)
    }

    /// Replaces the public data of a version. The algorithm must be the one that it was created with.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn update_backup(&self, user: UserNid, version: i64, algorithm: Algorithm) -> Result<(), BackupError> {
        if algorithm.version.as_ref().is_some_and(|named| *named != version.to_string()) {
            return Err(BackupError::OtherVersion);
        }
        let _turn = self.turns.take(user).await?;
        self.db.committer().transact(UpdateVersion { user, version, algorithm }).await?
    }

    /// Deletes a version with all its keys. Clients no longer see them at once; the rows are deleted a little later.
    /// Deleting a deleted version succeeds.
    ///
    /// # Errors
    /// [`BackupError::NoSuchVersion`] when there never was one.
    pub async fn delete_backup(&self, user: UserNid, version: i64) -> Result<(), BackupError> {
        let _turn = self.turns.take(user).await?;
        self.db.committer().transact(DeleteVersion { user, version }).await?
    }

    /// Reads one page of the room keys in this part of a version, ordered by room and session and starting after
    /// `after`. The second value says whether it is the last page.
    ///
    /// # Errors
    /// [`BackupError::NoSuchVersion`].
    pub(crate) async fn backup_page(
        &self,
        user: UserNid,
        version: i64,
        part: &Part,
        after: Option<&(String, String)>,
    ) -> Result<(Vec<SessionRow>, bool), BackupError> {
        let mut reader = self.db.read().await?;
        let mut conn = reader.conn();
        live_version(&mut conn, user, version).await?.ok_or(BackupError::NoSuchVersion)?;
        let after = after.map(|(room, session)| (room.as_str(), session.as_str())).unwrap_or_default();
        let rows = key_backup::sessions(&mut conn, user, version, part, after, SESSIONS_PER_PAGE).await?;
        let is_last = rows.len() < SESSIONS_PER_PAGE;
        Ok((rows, is_last))
    }
}

impl Transaction for CreateVersion {
    type Output = Result<i64, BackupError>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        let totals = key_backup::totals(conn, self.user).await?;
        if totals.live >= MAX_VERSIONS {
            return Ok(Err(BackupError::TooMany { what: "backups", limit: MAX_VERSIONS }));
        }
        let number = totals.last + 1;
        let row = KeyBackupVersionColumns {
            user_nid: self.user,
            version: number,
            algorithm: self.algorithm.algorithm.as_str().into(),
            auth_data: self.algorithm.auth_data.get().into(),
            etag: 0,
            count: 0,
            bytes: 0,
            deleted: false,
        }
        .row();
        insert_rows(conn, &[row]).await?;
        Ok(Ok(number))
    }
}

impl Transaction for UpdateVersion {
    type Output = Result<(), BackupError>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        match live_version(conn, self.user, self.version).await? {
            None => Ok(Err(BackupError::NoSuchVersion)),
            Some(row) if row.algorithm != self.algorithm.algorithm => Ok(Err(BackupError::OtherAlgorithm)),
            Some(_) => {
                key_backup::set_auth_data(conn, self.user, self.version, self.algorithm.auth_data.get()).await?;
                Ok(Ok(()))
            }
        }
    }
}

impl Transaction for DeleteVersion {
    type Output = Result<(), BackupError>;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<Self::Output, Error> {
        match key_backup::find_version(conn, self.user, self.version).await? {
            None => return Ok(Err(BackupError::NoSuchVersion)),
            Some(row) if row.deleted => {}
            Some(_) => {
                key_backup::mark_deleted(conn, self.user, self.version).await?;
                Leftover::Backup(self.user, self.version).leave(conn).await?;
            }
        }
        Ok(Ok(()))
    }
}
