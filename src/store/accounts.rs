//! Rows of accounts, devices and tokens.

use super::{Conn, Error, on, rows::inserts, statements};

statements! {
    FIND_SESSION = "SELECT t.user_nid, t.device_nid, d.device_id, t.expires_at, a.admin FROM access_token t \
        JOIN device d ON d.device_nid = t.device_nid JOIN account a ON a.user_nid = t.user_nid WHERE t.token_hash = $1";
}

inserts! {
    ACCOUNT = "account" ("user_nid", "password_hash", "admin", "created_at", "deactivated_at") key 1 Fail;
    DEVICE = "device" ("device_nid", "user_nid", "device_id", "display_name", "created_at", "last_seen_at", "last_seen_ip")
        key 1 Replace;
    ACCESS_TOKEN = "access_token" ("token_hash", "user_nid", "device_nid", "created_at", "expires_at") key 1 Fail;
}

/// A stored session, by its token.
#[derive(Debug, sqlx::FromRow)]
pub struct SessionRow {
    pub user_nid: i64,
    pub device_nid: i64,
    pub device_id: String,
    pub expires_at: Option<i64>,
    pub admin: bool,
}

/// The session that holds this token.
pub(crate) async fn find_session(conn: &mut Conn<'_>, token_hash: &[u8]) -> Result<Option<SessionRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(FIND_SESSION.text()).bind(token_hash).fetch_optional(&mut **db).await)?)
}
