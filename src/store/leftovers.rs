//! Leftovers: data whose owner is gone, and that is deleted piece by piece. These are the messages and keys of a device
//! that was signed out, the data of an account that was deactivated, and the room keys of a backup that was deleted.
//!
//! Each of them can be a million rows. All other writers would wait if the commit that ends the owner deleted them. So
//! that commit only stores a [`Leftover`], and [`sweep`] deletes the rows that it names, for which [`Sweeper`] follows the
//! commit log. Nothing reads leftover rows: the device, the account or the version is gone, and its short id is never used
//! again.

use std::sync::Arc;

use super::{
    Conn, Database, DeviceNid, Error, Position, Transaction, UserNid,
    committer::insert_rows,
    log::{Consumer, LogEntry, Touch},
    on,
    rows::inserts,
    statements, to_device,
};

statements! {
    LEFTOVERS = "SELECT kind, owner, part FROM leftover ORDER BY kind, owner, part LIMIT $1";
    DELETE_LEFTOVER = "DELETE FROM leftover WHERE kind = $1 AND owner = $2 AND part = $3";
    OF_DEVICES = "INSERT INTO leftover (kind, owner, part) SELECT 1, device_nid, 0 FROM device \
        WHERE user_nid = $1 AND device_nid <> $2";
    TXN_IDS = "DELETE FROM txn_id WHERE device_nid = $1 AND (scope, txn) IN \
        (SELECT scope, txn FROM txn_id WHERE device_nid = $1 ORDER BY scope, txn LIMIT $2)";
    ONE_TIME_KEYS = "DELETE FROM one_time_key WHERE device_nid = $1 AND (algorithm, key_id) IN \
        (SELECT algorithm, key_id FROM one_time_key WHERE device_nid = $1 ORDER BY algorithm, key_id LIMIT $2)";
    CLAIMED_KEYS = "DELETE FROM claimed_key WHERE device_nid = $1 AND digest IN \
        (SELECT digest FROM claimed_key WHERE device_nid = $1 ORDER BY digest LIMIT $2)";
    ACCOUNT_DATA = "DELETE FROM account_data WHERE user_nid = $1 AND (room_nid, type) IN \
        (SELECT room_nid, type FROM account_data WHERE user_nid = $1 ORDER BY room_nid, type LIMIT $2)";
    FILTERS = "DELETE FROM filter WHERE user_nid = $1 AND filter_id IN \
        (SELECT filter_id FROM filter WHERE user_nid = $1 ORDER BY filter_id LIMIT $2)";
    SIGNATURES = "DELETE FROM key_signature WHERE user_nid = $1 AND (key_id, signer_nid, signer_key_id) IN \
        (SELECT key_id, signer_nid, signer_key_id FROM key_signature WHERE user_nid = $1 \
        ORDER BY key_id, signer_nid, signer_key_id LIMIT $2)";
    UNREAD_TALLIES = "DELETE FROM unread_tally WHERE user_nid = $1 AND room_nid IN \
        (SELECT room_nid FROM unread_tally WHERE user_nid = $1 ORDER BY room_nid LIMIT $2)";
    BACKUP_SESSIONS = "DELETE FROM key_backup_session WHERE user_nid = $1 AND (version, room_id, session_id) IN \
        (SELECT version, room_id, session_id FROM key_backup_session WHERE user_nid = $1 \
        ORDER BY version, room_id, session_id LIMIT $2)";
    BACKUP_VERSIONS = "DELETE FROM key_backup_version WHERE user_nid = $1 AND version IN \
        (SELECT version FROM key_backup_version WHERE user_nid = $1 ORDER BY version LIMIT $2)";
    SESSIONS_OF_VERSION = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND (room_id, session_id) IN (SELECT room_id, session_id FROM key_backup_session \
        WHERE user_nid = $1 AND version = $2 ORDER BY room_id, session_id LIMIT $3)";
}

inserts! {
    LEFTOVER: LeftoverColumns = "leftover" (kind: i64, owner: i64, part: i64) key 3 Keep, followed by Leftover;
}

/// The number of rows that are deleted in one commit, for tables with small rows.
const SMALL_ROWS: i64 = 500;

/// The number of rows per commit for tables whose rows may take 64 KiB.
const LARGE_ROWS: i64 = 100;

/// The number of rows per commit for account data and filters, whose rows may take half a megabyte and more.
const HUGE_ROWS: i64 = 16;

/// The number of owners that are looked up at once.
const OWNERS: i64 = 100;

/// An owner whose rows are left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftover {
    Device(DeviceNid),
    /// The data that belongs to an account alone.
    Account(UserNid),
    /// The room keys in a version of a user's backup.
    Backup(UserNid, i64),
}

impl Leftover {
    fn columns(self) -> (i64, i64, i64) {
        match self {
            Self::Device(device) => (1, device.0, 0),
            Self::Account(user) => (2, user.0, 0),
            Self::Backup(user, version) => (3, user.0, version),
        }
    }

    fn from_columns((kind, owner, part): (i64, i64, i64)) -> Result<Self, Error> {
        match kind {
            1 => Ok(Self::Device(DeviceNid(owner))),
            2 => Ok(Self::Account(UserNid(owner))),
            3 => Ok(Self::Backup(UserNid(owner), part)),
            _ => Err(Error::damaged("leftover", format!("kind {kind}"))),
        }
    }

    /// Stores the leftover, in the commit that ends the owner.
    pub(crate) async fn leave(self, conn: &mut Conn<'_>) -> Result<(), Error> {
        let (kind, owner, part) = self.columns();
        conn.touch(Touch::Leftover);
        insert_rows(conn, &[LeftoverColumns { kind, owner, part }.row()]).await
    }
}

/// Stores a leftover for each of the user's devices, except the kept one.
pub(crate) async fn leave_devices(conn: &mut Conn<'_>, user: UserNid, kept: DeviceNid) -> Result<(), Error> {
    conn.touch(Touch::Leftover);
    Ok(on!(conn, db => sqlx::query(OF_DEVICES.text())
        .bind(user.0).bind(kept.0).execute(&mut **db).await.map(|_| ()))?)
}

/// Deletes all leftovers, one piece per commit.
///
/// # Errors
/// Database errors; rows that were deleted until then stay deleted.
pub async fn sweep(db: &Database) -> Result<(), Error> {
    loop {
        let mut reader = db.read().await?;
        let rows: Vec<(i64, i64, i64)> = on!(&mut reader.conn(), db => sqlx::query_as(LEFTOVERS.text())
            .bind(OWNERS).fetch_all(&mut **db).await)?;
        drop(reader);
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            let leftover = Leftover::from_columns(row)?;
            while db.committer().transact(DeletePiece(leftover)).await? {}
        }
    }
}

/// Sweeps after each commit that has left something.
pub struct Sweeper {
    db: Arc<Database>,
}

impl Sweeper {
    pub fn new(db: Arc<Database>) -> Self {
        Self { db }
    }
}

impl Consumer for Sweeper {
    const NAME: &'static str = "leftovers";
    type Work = ();

    fn concerns(touch: &Touch) -> bool {
        matches!(touch, Touch::Leftover)
    }

    fn work(&self, _: &LogEntry) -> Option<()> {
        Some(())
    }

    async fn perform(&self, _: Vec<()>) -> Result<(), Error> {
        sweep(&self.db).await
    }

    async fn catch_up(&self, _: Position, _: Position) -> Result<(), Error> {
        sweep(&self.db).await
    }
}

struct DeletePiece(Leftover);

impl Transaction for DeletePiece {
    /// `true` if there may be more.
    type Output = bool;

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<bool, Error> {
        let tables: &[(super::Sql, i64)] = match self.0 {
            Leftover::Device(_) => &[(TXN_IDS, SMALL_ROWS), (ONE_TIME_KEYS, SMALL_ROWS), (CLAIMED_KEYS, SMALL_ROWS)],
            Leftover::Account(_) => &[
                (ACCOUNT_DATA, HUGE_ROWS),
                (FILTERS, HUGE_ROWS),
                (UNREAD_TALLIES, SMALL_ROWS),
                (SIGNATURES, SMALL_ROWS),
                (BACKUP_SESSIONS, LARGE_ROWS),
                (BACKUP_VERSIONS, HUGE_ROWS),
            ],
            Leftover::Backup(..) => &[],
        };
        let (kind, owner, part) = self.0.columns();
        for (statement, limit) in tables {
            let deleted = on!(conn, db => sqlx::query(statement.text())
                .bind(owner).bind(limit).execute(&mut **db).await.map(|done| done.rows_affected()))?;
            if deleted > 0 {
                return Ok(true);
            }
        }
        let deleted = match self.0 {
            Leftover::Device(device) => {
                let (removed, _) =
                    to_device::delete_upto(conn, device, Position(i64::MAX), LARGE_ROWS as usize).await?;
                removed.messages
            }
            Leftover::Account(_) => 0,
            Leftover::Backup(..) => on!(conn, db => sqlx::query(SESSIONS_OF_VERSION.text())
                .bind(owner).bind(part).bind(LARGE_ROWS).execute(&mut **db).await.map(|done| done.rows_affected()))?,
        };
        if deleted > 0 {
            return Ok(true);
        }
        on!(conn, db => sqlx::query(DELETE_LEFTOVER.text())
            .bind(kind).bind(owner).bind(part).execute(&mut **db).await.map(|_| ()))?;
        Ok(false)
    }
}
