//! Rows of access tokens, refresh tokens and login tokens. All of them are stored as hashes only.

use super::{Conn, DeviceNid, Error, Sql, UserNid, from_row, log::Touch, on, rows::inserts, statements};

statements! {
    FIND_SESSION = "SELECT t.user_nid, t.device_nid, d.device_id, t.expires_at, t.refresh_hash, a.admin \
        FROM access_token t JOIN device d ON d.device_nid = t.device_nid JOIN account a ON a.user_nid = t.user_nid \
        WHERE t.token_hash = $1";
    DELETE_ACCESS_OF_DEVICE = "DELETE FROM access_token WHERE device_nid = $1 RETURNING user_nid, token_hash";
    DELETE_REFRESH_OF_DEVICE = "DELETE FROM refresh_token WHERE device_nid = $1";
    FIND_REFRESH = "SELECT user_nid, device_nid, next_hash, expires_at FROM refresh_token WHERE token_hash = $1";
    FIND_PREDECESSOR = "SELECT token_hash FROM refresh_token WHERE next_hash = $1";
    SET_SUCCESSOR = "UPDATE refresh_token SET next_hash = $1 WHERE token_hash = $2";
    DELETE_REFRESH = "DELETE FROM refresh_token WHERE token_hash = $1";
    DELETE_ACCESS_OF_REFRESH = "DELETE FROM access_token WHERE refresh_hash = $1 RETURNING user_nid, token_hash";
    FIND_LOGIN_TOKEN = "SELECT user_nid FROM login_token WHERE token_hash = $1";
    TAKE_LOGIN_TOKEN = "DELETE FROM login_token WHERE token_hash = $1 RETURNING user_nid, expires_at";
    DELETE_LOGIN_OF_USER = "DELETE FROM login_token WHERE user_nid = $1";
    DELETE_ACCESS_OF_DEVICES = "DELETE FROM access_token WHERE device_nid IN \
        (SELECT device_nid FROM device WHERE user_nid = $1 AND device_nid <> $2) RETURNING user_nid, token_hash";
    DELETE_REFRESH_OF_DEVICES = "DELETE FROM refresh_token WHERE device_nid IN \
        (SELECT device_nid FROM device WHERE user_nid = $1 AND device_nid <> $2)";
    EXPIRED_LOGIN = "SELECT token_hash FROM login_token WHERE expires_at < $1 ORDER BY expires_at, token_hash LIMIT $2";
    EXPIRED_REFRESH = "SELECT token_hash FROM refresh_token WHERE expires_at < $1 ORDER BY expires_at, token_hash LIMIT $2";
    /// An expired access token is kept while its refresh token lives: it must be told from an unknown one, because the
    /// client may refresh it. The refresh token is looked up for each, which a join would not do.
    EXPIRED_ACCESS = "SELECT token_hash FROM access_token WHERE expires_at < $1 \
        AND (SELECT COUNT(*) FROM refresh_token r WHERE r.token_hash = access_token.refresh_hash) = 0 \
        ORDER BY expires_at, token_hash LIMIT $2";
    DELETE_LOGIN = "DELETE FROM login_token WHERE token_hash = $1";
    DELETE_ACCESS = "DELETE FROM access_token WHERE token_hash = $1";
}

inserts! {
    ACCESS_TOKEN: AccessTokenColumns = "access_token" (
        token_hash: Vec<u8>, user_nid: UserNid, device_nid: DeviceNid, created_at: i64, expires_at: Option<i64>,
        refresh_hash: Option<Vec<u8>>
    ) key 1 Fail, not followed;
    REFRESH_TOKEN: RefreshTokenColumns = "refresh_token" (
        token_hash: Vec<u8>, user_nid: UserNid, device_nid: DeviceNid, next_hash: Option<Vec<u8>>, created_at: i64,
        expires_at: Option<i64>
    ) key 1 Fail, not followed;
    LOGIN_TOKEN: LoginTokenColumns = "login_token" (
        token_hash: Vec<u8>, user_nid: UserNid, expires_at: i64
    ) key 1 Fail, not followed;
}

/// A stored session, by its token.
#[derive(Debug)]
pub struct SessionRow {
    pub user_nid: i64,
    pub device_nid: i64,
    pub device_id: String,
    pub expires_at: Option<i64>,
    pub refresh_hash: Option<Vec<u8>>,
    pub admin: bool,
}

from_row!(SessionRow { user_nid, device_nid, device_id, expires_at, refresh_hash, admin });

/// A stored refresh token.
#[derive(Debug)]
pub struct RefreshRow {
    pub user_nid: i64,
    pub device_nid: i64,
    /// The successor of this token, until somebody uses it.
    pub next_hash: Option<Vec<u8>>,
    pub expires_at: Option<i64>,
}

from_row!(RefreshRow { user_nid, device_nid, next_hash, expires_at });

/// The number of revoked sessions that one touch names: an account may have thousands.
const SESSIONS_PER_TOUCH: usize = 64;

/// Touches the sessions of deleted access tokens. `rows` are their users and hashes.
fn revoked(conn: &mut Conn<'_>, rows: &[(i64, Vec<u8>)]) {
    for sessions in rows.chunks(SESSIONS_PER_TOUCH) {
        // The tokens of one statement belong to one user.
        let Some((user, _)) = sessions.first() else { continue };
        let tokens = sessions.iter().filter_map(|(_, hash)| hash.as_slice().try_into().ok()).collect();
        conn.touch(Touch::Sessions { user: UserNid(*user), tokens });
    }
}

/// The session that holds this token.
pub(crate) async fn find_session(conn: &mut Conn<'_>, token_hash: &[u8]) -> Result<Option<SessionRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(FIND_SESSION.text()).bind(token_hash).fetch_optional(&mut **db).await)?)
}

/// Deletes all access and refresh tokens of a device.
pub(crate) async fn delete_of_device(conn: &mut Conn<'_>, device: DeviceNid) -> Result<(), Error> {
    on!(conn, db => sqlx::query(DELETE_REFRESH_OF_DEVICE.text()).bind(device.0).execute(&mut **db).await.map(drop))?;
    let rows: Vec<(i64, Vec<u8>)> = on!(conn, db =>
        sqlx::query_as(DELETE_ACCESS_OF_DEVICE.text()).bind(device.0).fetch_all(&mut **db).await)?;
    revoked(conn, &rows);
    Ok(())
}

pub(crate) async fn find_refresh(conn: &mut Conn<'_>, hash: &[u8]) -> Result<Option<RefreshRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_REFRESH.text()).bind(hash).fetch_optional(&mut **db).await)?)
}

/// The refresh token that was exchanged for this one and still works.
pub(crate) async fn find_predecessor(conn: &mut Conn<'_>, hash: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let row: Option<(Vec<u8>,)> =
        on!(conn, db => sqlx::query_as(FIND_PREDECESSOR.text()).bind(hash).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(hash,)| hash))
}

pub(crate) async fn set_successor(conn: &mut Conn<'_>, hash: &[u8], next: &[u8]) -> Result<(), Error> {
    Ok(on!(conn, db =>
        sqlx::query(SET_SUCCESSOR.text()).bind(next).bind(hash).execute(&mut **db).await.map(drop))?)
}

/// Deletes a refresh token and the access tokens that were given out with it.
pub(crate) async fn delete_refresh(conn: &mut Conn<'_>, hash: &[u8]) -> Result<(), Error> {
    on!(conn, db => sqlx::query(DELETE_REFRESH.text()).bind(hash).execute(&mut **db).await.map(drop))?;
    let rows: Vec<(i64, Vec<u8>)> = on!(conn, db =>
        sqlx::query_as(DELETE_ACCESS_OF_REFRESH.text()).bind(hash).fetch_all(&mut **db).await)?;
    revoked(conn, &rows);
    Ok(())
}

/// The user of an unused login token.
pub(crate) async fn find_login_token(conn: &mut Conn<'_>, hash: &[u8]) -> Result<Option<i64>, Error> {
    let row: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(FIND_LOGIN_TOKEN.text()).bind(hash).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(user,)| user))
}

/// Deletes a login token. Returns its user and its expiry time.
pub(crate) async fn take_login_token(conn: &mut Conn<'_>, hash: &[u8]) -> Result<Option<(i64, i64)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(TAKE_LOGIN_TOKEN.text()).bind(hash).fetch_optional(&mut **db).await)?)
}

pub(crate) async fn delete_login_tokens(conn: &mut Conn<'_>, user: UserNid) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(DELETE_LOGIN_OF_USER.text()).bind(user.0).execute(&mut **db).await.map(drop))?)
}

/// Tokens of one kind that nobody needs any more.
pub(crate) struct Expired {
    delete: Sql,
    hashes: Vec<Vec<u8>>,
}

/// Tokens that expired before `at`, at most `limit` of each kind, except access tokens that can still be refreshed.
pub(crate) async fn find_expired(conn: &mut Conn<'_>, at: i64, limit: i64) -> Result<Vec<Expired>, Error> {
    let mut expired = Vec::new();
    for (find, delete) in
        [(EXPIRED_LOGIN, DELETE_LOGIN), (EXPIRED_REFRESH, DELETE_REFRESH), (EXPIRED_ACCESS, DELETE_ACCESS)]
    {
        let rows: Vec<(Vec<u8>,)> =
            on!(conn, db => sqlx::query_as(find.text()).bind(at).bind(limit).fetch_all(&mut **db).await)?;
        if !rows.is_empty() {
            expired.push(Expired { delete, hashes: rows.into_iter().map(|(hash,)| hash).collect() });
        }
    }
    Ok(expired)
}

/// Deletes expired tokens. The result of [`find_expired`] still holds: no token gets a new expiry time, and no access
/// token gets a new refresh token.
pub(crate) async fn delete_expired(conn: &mut Conn<'_>, expired: &Expired) -> Result<(), Error> {
    for hash in &expired.hashes {
        on!(conn, db => sqlx::query(expired.delete.text()).bind(hash.as_slice()).execute(&mut **db).await.map(drop))?;
    }
    Ok(())
}

/// Deletes all access and refresh tokens of a user's devices, except the kept one.
pub(crate) async fn delete_of_devices(conn: &mut Conn<'_>, user: UserNid, kept: DeviceNid) -> Result<(), Error> {
    on!(conn, db => sqlx::query(DELETE_REFRESH_OF_DEVICES.text())
        .bind(user.0).bind(kept.0).execute(&mut **db).await.map(drop))?;
    let rows: Vec<(i64, Vec<u8>)> = on!(conn, db => sqlx::query_as(DELETE_ACCESS_OF_DEVICES.text())
        .bind(user.0).bind(kept.0).fetch_all(&mut **db).await)?;
    revoked(conn, &rows);
    Ok(())
}
