//! Rows of other servers' signing keys.

use super::{
    Conn, Error, Position, Row, Transaction,
    committer::insert_rows,
    from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    KEYS_OF_SERVER = "SELECT key_id, public_key, valid_until FROM server_key WHERE server_name = $1 ORDER BY key_id LIMIT 100";
    DELETE_OF_SERVER = "DELETE FROM server_key WHERE server_name = $1";
    ENDED_BEFORE = "SELECT server_name FROM server_key WHERE valid_until < $1 ORDER BY valid_until, server_name LIMIT $2";
    DELETE_ENDED = "DELETE FROM server_key WHERE server_name = $1 AND valid_until < $2";
}

inserts! {
    SERVER_KEY: ServerKeyColumns = "server_key" (
        server_name: Text, key_id: Text, public_key: Vec<u8>, valid_until: i64
    ) key 2 Replace, not followed;
}

/// A key that a server signs with.
#[derive(Debug, Clone)]
pub(crate) struct ServerKeyRow {
    pub key_id: String,
    pub public_key: Vec<u8>,
    /// The end of its validity, in milliseconds since 1970.
    pub valid_until: i64,
}

from_row!(ServerKeyRow { key_id, public_key, valid_until });

/// All keys of a server, valid or not.
pub(crate) async fn keys_of(conn: &mut Conn<'_>, server_name: &str) -> Result<Vec<ServerKeyRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(KEYS_OF_SERVER.text()).bind(server_name).fetch_all(&mut **db).await)?)
}

/// At most `limit` servers with keys that ended before this moment.
pub(crate) async fn servers_with_ended_keys(
    conn: &mut Conn<'_>,
    before_ms: i64,
    limit: i64,
) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> = on!(conn, db =>
        sqlx::query_as(ENDED_BEFORE.text()).bind(before_ms).bind(limit).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(server,)| server).collect())
}

/// Replaces all known keys of the server by these: a key that it no longer publishes is gone.
pub(crate) struct ReplaceKeys {
    pub server_name: String,
    pub keys: Vec<ServerKeyRow>,
}

impl Transaction for ReplaceKeys {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        on!(conn, db => sqlx::query(DELETE_OF_SERVER.text())
            .bind(self.server_name.as_str()).execute(&mut **db).await.map(|_| ()))?;
        let row = |key: &ServerKeyRow| -> Row {
            ServerKeyColumns {
                server_name: self.server_name.as_str().into(),
                key_id: key.key_id.as_str().into(),
                public_key: key.public_key.clone(),
                valid_until: key.valid_until,
            }
            .row()
        };
        insert_rows(conn, &self.keys.iter().map(row).collect::<Vec<_>>()).await
    }
}

/// Deletes the keys that ended before this moment.
pub(crate) struct ForgetEnded {
    pub servers: Vec<String>,
    pub before_ms: i64,
}

impl Transaction for ForgetEnded {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        for server in &self.servers {
            on!(conn, db => sqlx::query(DELETE_ENDED.text())
                .bind(server.as_str()).bind(self.before_ms).execute(&mut **db).await.map(|_| ()))?;
        }
        Ok(())
    }
}
