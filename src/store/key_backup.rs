//! Rows of key backups: versions, and the room keys in them.

use super::{Conn, Error, UserNid, from_row, on, rows::inserts, statements};

statements! {
    LATEST_VERSION = "SELECT version, algorithm, auth_data, etag, count, deleted FROM key_backup_version \
        WHERE user_nid = $1 AND deleted = $2 ORDER BY version DESC LIMIT 1";
    FIND_VERSION = "SELECT version, algorithm, auth_data, etag, count, deleted FROM key_backup_version \
        WHERE user_nid = $1 AND version = $2";
    /// Deleted versions count, so that no number is used twice.
    LAST_NUMBER = "SELECT MAX(version), SUM(CASE WHEN deleted = $2 THEN 1 ELSE 0 END) FROM key_backup_version \
        WHERE user_nid = $1";
    SET_AUTH_DATA = "UPDATE key_backup_version SET auth_data = $3 WHERE user_nid = $1 AND version = $2";
    SET_COUNT = "UPDATE key_backup_version SET etag = $3, count = $4 WHERE user_nid = $1 AND version = $2";
    MARK_DELETED = "UPDATE key_backup_version SET deleted = $3, auth_data = '{}', count = 0 \
        WHERE user_nid = $1 AND version = $2";
    RANKS_16 = "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified FROM key_backup_session \
        WHERE user_nid = $1 AND version = $2 AND (room_id, session_id) IN (VALUES ($3, $4), ($5, $6), ($7, $8), ($9, $10), \
        ($11, $12), ($13, $14), ($15, $16), ($17, $18), ($19, $20), ($21, $22), ($23, $24), ($25, $26), ($27, $28), \
        ($29, $30), ($31, $32), ($33, $34))";
    ALL_SESSIONS = "SELECT room_id, session_id, json FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        ORDER BY room_id, session_id";
    SESSIONS_OF_ROOM = "SELECT room_id, session_id, json FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND room_id = $3 ORDER BY session_id";
    FIND_SESSION = "SELECT room_id, session_id, json FROM key_backup_session WHERE user_nid = $1 AND version = $2 \
        AND room_id = $3 AND session_id = $4";
    DELETE_ALL = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2";
    DELETE_ROOM = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2 AND room_id = $3";
    DELETE_SESSION = "DELETE FROM key_backup_session WHERE user_nid = $1 AND version = $2 AND room_id = $3 \
        AND session_id = $4";
}

inserts! {
    KEY_BACKUP_VERSION = "key_backup_version" ("user_nid", "version", "algorithm", "auth_data", "etag", "count", "deleted")
        key 2 Fail;
    KEY_BACKUP_SESSION = "key_backup_session" ("user_nid", "version", "room_id", "session_id", "first_message_index",
        "forwarded_count", "is_verified", "json") key 4 Replace;
}

/// A version of a user's backup.
#[derive(Debug, Clone)]
pub(crate) struct VersionRow {
    pub version: i64,
    pub algorithm: String,
    pub auth_data: String,
    pub etag: i64,
    pub count: i64,
    pub deleted: bool,
}

from_row!(VersionRow { version, algorithm, auth_data, etag, count, deleted });

/// What a stored room key is worth, compared with another for the same session.
#[derive(Debug)]
pub(crate) struct RankRow {
    pub room_id: String,
    pub session_id: String,
    pub first_message_index: i64,
    pub forwarded_count: i64,
    pub is_verified: bool,
}

from_row!(RankRow { room_id, session_id, first_message_index, forwarded_count, is_verified });

/// Which room keys of a backup are meant.
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

/// The version, also when it was deleted.
pub(crate) async fn find_version(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
) -> Result<Option<VersionRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_VERSION.text())
        .bind(user.0).bind(version).fetch_optional(&mut **db).await)?)
}

/// The highest number that was ever given to a version, 0 if none was, and how many versions are not deleted.
pub(crate) async fn last_number(conn: &mut Conn<'_>, user: UserNid) -> Result<(i64, i64), Error> {
    let (last, live): (Option<i64>, Option<i64>) = on!(conn, db => sqlx::query_as(LAST_NUMBER.text())
        .bind(user.0).bind(false).fetch_one(&mut **db).await)?;
    Ok((last.unwrap_or(0), live.unwrap_or(0)))
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
    count: i64,
) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_COUNT.text())
        .bind(user.0).bind(version).bind(etag).bind(count).execute(&mut **db).await.map(|_| ()))?)
}

/// Deletes the version with all its keys. Its number stays taken.
pub(crate) async fn delete_version(conn: &mut Conn<'_>, user: UserNid, version: i64) -> Result<(), Error> {
    delete_sessions(conn, user, version, &Part::All).await?;
    Ok(on!(conn, db => sqlx::query(MARK_DELETED.text())
        .bind(user.0).bind(version).bind(true).execute(&mut **db).await.map(|_| ()))?)
}

/// What the stored keys of these sessions are worth; sessions that are not stored are missing.
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

/// The room keys of this part of the backup. The protocol has no pages here: all of them.
pub(crate) async fn sessions(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    part: &Part,
) -> Result<Vec<SessionRow>, Error> {
    Ok(match part {
        Part::All => on!(conn, db => sqlx::query_as(ALL_SESSIONS.text())
            .bind(user.0).bind(version).fetch_all(&mut **db).await)?,
        Part::Room(room) => on!(conn, db => sqlx::query_as(SESSIONS_OF_ROOM.text())
            .bind(user.0).bind(version).bind(room.as_str()).fetch_all(&mut **db).await)?,
        Part::Session(room, session) => on!(conn, db => sqlx::query_as(FIND_SESSION.text())
            .bind(user.0).bind(version).bind(room.as_str()).bind(session.as_str()).fetch_all(&mut **db).await)?,
    })
}

/// Deletes the room keys of this part of the backup, and says how many there were.
pub(crate) async fn delete_sessions(
    conn: &mut Conn<'_>,
    user: UserNid,
    version: i64,
    part: &Part,
) -> Result<u64, Error> {
    Ok(match part {
        Part::All => on!(conn, db => sqlx::query(DELETE_ALL.text())
            .bind(user.0).bind(version).execute(&mut **db).await.map(|done| done.rows_affected()))?,
        Part::Room(room) => on!(conn, db => sqlx::query(DELETE_ROOM.text())
            .bind(user.0).bind(version).bind(room.as_str())
            .execute(&mut **db).await.map(|done| done.rows_affected()))?,
        Part::Session(room, session) => on!(conn, db => sqlx::query(DELETE_SESSION.text())
            .bind(user.0).bind(version).bind(room.as_str()).bind(session.as_str())
            .execute(&mut **db).await.map(|done| done.rows_affected()))?,
    })
}
