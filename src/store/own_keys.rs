//! Rows of this server's own signing keys, without their secrets.

use super::{
    Conn, Error, Row, from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    OWN_KEYS = "SELECT key_id, public_key, created_at, expired_at FROM own_key ORDER BY created_at, key_id LIMIT 300";
}

inserts! {
    OWN_KEY: OwnKeyColumns = "own_key" (
        key_id: Text, public_key: Vec<u8>, created_at: i64, expired_at: Option<i64>
    ) key 1 Replace, not followed;
}

/// A key that this server signs with, or has signed with. The times are in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct OwnKeyRow {
    pub key_id: String,
    pub public_key: Vec<u8>,
    pub created_at: i64,
    /// The end of its validity. The key without one is in use.
    pub expired_at: Option<i64>,
}

from_row!(OwnKeyRow { key_id, public_key, created_at, expired_at });

impl OwnKeyRow {
    pub(crate) fn row(&self) -> Row {
        OwnKeyColumns {
            key_id: self.key_id.as_str().into(),
            public_key: self.public_key.clone(),
            created_at: self.created_at,
            expired_at: self.expired_at,
        }
        .row()
    }
}

/// All keys, oldest first: more than `signing_key::MAX_KEYS`, which is the most that there can be.
pub(crate) async fn own_keys(conn: &mut Conn<'_>) -> Result<Vec<OwnKeyRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(OWN_KEYS.text()).fetch_all(&mut **db).await)?)
}
