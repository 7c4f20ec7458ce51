//! Rows of key backups: versions, and the room keys in them.

use super::{
    Conn, Error, UserNid, from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    LATEST_VERSION = "SELECT version, algorithm, auth_data, etag, count, bytes, deleted FROM key_backup_version \
        WHERE user_nid = $1 AND deleted = $2 ORDER BY version DESC LIMIT 1";
    FIND_VERSION = "SELECT version, algorithm, auth_data, etag, count, bytes, deleted FROM key_backup_version \
        WHERE user_nid = $1 AND version = $2";
    /// Deleted versions count, so that no number is used twice.
    TOTALS = "SELECT COALESCE(MAX(version), 0), CAST(COALESCE(SUM(CASE WHEN deleted = $2 THEN 1 ELSE 0 END), 0) AS BIGINT), \
        CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM key_backup_version WHERE user_nid = $1";
    SET_AUTH_DATA = "UPDATE key_backup_version SET auth_data = $3 WHERE user_nid = $1 AND version = $2";
    SET_COUNT = "UPDATE key_backup_version SET etag = $3, count = $4, bytes = $5 WHERE user_nid = $1 AND version = $2";
    MARK_DELETED = "UPDATE key_backup_version SET deleted = $3, auth_data = '{}', count = 0, bytes = 0 \
        WHERE user_nid = $1 AND version = $2";
    RANKS_16 = "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, bytes FROM key_backup_session \
        WHERE user_nid = $1 AND version = $2 AND (room_id, session_id) IN (VALUES ($3, $4), ($5, $6), ($7, $8), ($9, $10), \
        ($11, $12), ($13, $14), ($15, $16), ($17, $18), ($19, $20), ($21, $22), ($23, $24), ($25, $26), ($27, $28), \
        ($29, $30), ($31, $32), ($33, $34))";
    ALL_SESSIONS = "SELECT room_id, session_id, json FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND (room_id, session_id) > ($3, $4) ORDER BY room_id, session_id LIMIT $5";
    SESSIONS_OF_ROOM = "SELECT room_id, session_id, json FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND room_id = $3 AND session_id > $4 ORDER BY session_id LIMIT $5";
    FIND_SESSION = "SELECT room_id, session_id, json FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND room_id = $3 AND session_id = $4";
    DELETE_SOME = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2 AND (room_id, session_id) IN \
        (SELECT room_id, session_id FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        ORDER BY room_id, session_id LIMIT $3) RETURNING bytes";
    DELETE_SOME_OF_ROOM = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2 AND room_id = $3 \
        AND session_id IN (SELECT session_id FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND room_id = $3 ORDER BY session_id LIMIT $4) RETURNING bytes";
    DELETE_SESSION = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2 AND room_id = $3 \
        AND session_id = $4 RETURNING bytes";
}

inserts! {
    KEY_BACKUP_VERSION: KeyBackupVersionColumns = "key_backup_version" (
        user_nid: UserNid, version: i64, algorithm: Text, auth_data: Text, etag: i64, count: i64, bytes: i64,
        deleted: bool
    ) key 2 Fail, not followed;
    KEY_BACKUP_SESSION: KeyBackupSessionColumns = "key_backup_session" (
        user_nid: UserNid, version: i64, room_id: Text, session_id: Text, first_message_index: i64,
        forwarded_count: i64, is_verified: bool, bytes: i64, json: Text
    ) key 4 Replace, not followed;
}

/// A version of a user's backup.
#[derive(Debug, Clone)]
pub(crate) struct VersionRow {
    pub version: i64,
    pub algorithm: String,
    pub auth_data: String,
    pub etag: i64,
    pub count: i64,
    /// The size of its room keys in bytes.
    pub bytes: i64,
    pub deleted: bool,
}

from_row!(VersionRow { version, algorithm, auth_data, etag, count, bytes, deleted });

/// The totals of a user's backups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    /// The highest number that was ever given to a version, 0 if none was.
    pub last: i64,
    /// The number of versions that are not deleted.
    pub live: i64,
    /// The size of all their room keys in bytes.
    pub bytes: i64,
}

/// The rank of a stored room key, for comparison with another key for the same session.
#[derive(Debug)]
pub(crate) struct RankRow {
    pub room_id: String,
    pub session_id: String,
    pub first_message_index: i64,
    pub forwarded_count: i64,
    pub is_verified: bool,
    pub bytes: i64,
}

from_row!(RankRow { room_id, session_id, first_message_index, forwarded_count, is_verified, bytes });

/// A selection of a backup's room keys.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    All,
    Room(String),
    Session(String, String),
}

/// A room key: room, session and JSON.
pub(crate) type SessionRow = (String, String, String);

/// The newest version that was not deleted.
pub(crate) async fn latest_version(conn: &mut Conn<'_>, user: UserNid) -> Result<Option<VersionRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(LATEST_VERSION.text())
        .bind(user.0).bind(false).fetch_optional(&mut **db).await)?)
}

/// The version, deleted or not.
pub(crate) async fn find_version(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
) -> Result<Option<VersionRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_VERSION.text())
        .bind(user.0).bind(version).fetch_optional(&mut **db).await)?)
}

/// The totals of the user's backups. Deleted versions count for the highest number, so that no number is used twice.
pub(crate) async fn totals(conn: &mut Conn<'_>, user: UserNid) -> Result<Totals, Error> {
    let (last, live, bytes): (i64, i64, i64) = on!(conn, db => sqlx::query_as(TOTALS.text())
        .bind(user.0).bind(false).fetch_one(&mut **db).await)?;
    Ok(Totals { last, live, bytes })
}

pub(crate) async fn set_auth_data(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    auth_data: &str,
) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_AUTH_DATA.text())
        .bind(user.0).bind(version).bind(auth_data).execute(&mut **db).await.map(|_| ()))?)
}

pub(crate) async fn set_count(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    etag: i64,
    (count, bytes): (i64, i64),
) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_COUNT.text())
        .bind(user.0).bind(version).bind(etag).bind(count).bind(bytes).execute(&mut **db).await.map(|_| ()))?)
}

/// Marks the version as deleted. Its number stays taken; a sweep deletes its room keys later.
pub(crate) async fn mark_deleted(conn: &mut Conn<'_>, user: UserNid, version: i64) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(MARK_DELETED.text())
        .bind(user.0).bind(version).bind(true).execute(&mut **db).await.map(|_| ()))?)
}

/// The ranks of the stored keys for these sessions; sessions that are not stored are missing.
pub(crate) async fn ranks(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    sessions: &[(&str, &str)],
) -> Result<Vec<RankRow>, Error> {
    let mut rows = Vec::new();
    for chunk in sessions.chunks(16) {
        let found: Vec<RankRow> = on!(conn, db => {
            let mut query = sqlx::query_as(RANKS_16.text()).bind(user.0).bind(version);
            for index in 0..16 {
                // No room ID is empty, so an empty one finds nothing.
                let (room, session) = chunk.get(index).copied().unwrap_or_default();
                query = query.bind(room.to_owned()).bind(session.to_owned());
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The room keys of this part of the backup in the order of rooms and sessions, from the first one after `after`, at most
/// `limit`. No room and no session has an empty ID.
pub(crate) async fn sessions(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    part: &Part,
    after: (&str, &str),
    limit: usize,
) -> Result<Vec<SessionRow>, Error> {
    let limit = limit as i64;
    Ok(match part {
        Part::All => on!(conn, db => sqlx::query_as(ALL_SESSIONS.text())
            .bind(user.0).bind(version).bind(after.0).bind(after.1).bind(limit).fetch_all(&mut **db).await)?,
        Part::Room(room) => on!(conn, db => sqlx::query_as(SESSIONS_OF_ROOM.text())
            .bind(user.0).bind(version).bind(room.as_str()).bind(after.1).bind(limit).fetch_all(&mut **db).await)?,
        Part::Session(room, session) => on!(conn, db => sqlx::query_as(FIND_SESSION.text())
            .bind(user.0).bind(version).bind(room.as_str()).bind(session.as_str()).fetch_all(&mut **db).await)?,
    })
}

/// Deletes at most `limit` room keys of this part of the backup. Returns their number and their bytes.
pub(crate) async fn delete_some(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    part: &Part,
    limit: i64,
) -> Result<(i64, i64), Error> {
    let sizes: Vec<(i64,)> = match part {
        Part::All => on!(conn, db => sqlx::query_as(DELETE_SOME.text())
            .bind(user.0).bind(version).bind(limit).fetch_all(&mut **db).await)?,
        Part::Room(room) => on!(conn, db => sqlx::query_as(DELETE_SOME_OF_ROOM.text())
            .bind(user.0).bind(version).bind(room.as_str()).bind(limit).fetch_all(&mut **db).await)?,
        Part::Session(room, session) => on!(conn, db => sqlx::query_as(DELETE_SESSION.text())
            .bind(user.0).bind(version).bind(room.as_str()).bind(session.as_str()).fetch_all(&mut **db).await)?,
    };
    Ok((sizes.len() as i64, sizes.iter().map(|(bytes,)| bytes).sum()))
}
