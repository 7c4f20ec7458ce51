//! Rows of other servers' signing keys, and of the answers that showed them.

use std::collections::HashMap;

use super::{
    Conn, Error, Position, Row, Transaction,
    committer::insert_rows,
    device_keys::in_32,
    from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    KEYS_OF_SERVER = "SELECT key_id, public_key, valid_until, expired_at FROM server_key WHERE server_name = $1 \
        ORDER BY key_id LIMIT 512";
    END_OF_ANSWER = "SELECT valid_until FROM server_key_answer WHERE server_name = $1";
    ANSWERS_OF_SERVERS_32 = concat!("SELECT server_name, json, valid_until FROM server_key_answer WHERE server_name IN ",
        in_32!(), " ORDER BY server_name");
}

inserts! {
    SERVER_KEY: ServerKeyColumns = "server_key" (
        server_name: Text, key_id: Text, public_key: Vec<u8>, valid_until: i64, expired_at: Option<i64>
    ) key 2 Replace, not followed;
    SERVER_KEY_ANSWER: ServerKeyAnswerColumns = "server_key_answer" (
        server_name: Text, json: Text, valid_until: i64
    ) key 1 Replace, not followed;
}

/// A key of a server, with its times in milliseconds since 1970.
#[derive(Debug, Clone)]
pub(crate) struct ServerKeyRow {
    pub key_id: String,
    pub public_key: Vec<u8>,
    /// The time until which the server has said that it signs with the key.
    pub valid_until: i64,
    /// The end of the key, once the server has retired it.
    pub expired_at: Option<i64>,
}

from_row!(ServerKeyRow { key_id, public_key, valid_until, expired_at });

/// A server's answer about its keys, with its signatures.
#[derive(Debug, Clone)]
pub(crate) struct ServerKeyAnswer {
    pub json: Text,
    /// The end of its validity, in milliseconds since 1970.
    pub valid_until: i64,
}

/// All keys of a server, valid or not: as many as a server can have (`known_keys::MAX_KEYS`).
pub(crate) async fn keys_of(conn: &mut Conn<'_>, server_name: &str) -> Result<Vec<ServerKeyRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(KEYS_OF_SERVER.text()).bind(server_name).fetch_all(&mut **db).await)?)
}

/// The number of servers for which [`answers_of`] asks at once.
pub(crate) const SERVERS_PER_STATEMENT: usize = 32;

/// The stored answers of at most 32 servers, by their names.
pub(crate) async fn answers_of(
    conn: &mut Conn<'_>,
    servers: &[&str],
) -> Result<HashMap<String, ServerKeyAnswer>, Error> {
    debug_assert!(servers.len() <= SERVERS_PER_STATEMENT);
    let rows: Vec<(String, String, i64)> = on!(conn, db => {
        let mut query = sqlx::query_as(ANSWERS_OF_SERVERS_32.text());
        for index in 0..SERVERS_PER_STATEMENT {
            // No name is empty, so an empty one finds nothing.
            query = query.bind(servers.get(index).copied().unwrap_or_default());
        }
        query.fetch_all(&mut **db).await
    })?;
    let answer = |(server, json, valid_until): (String, String, i64)| {
        (server, ServerKeyAnswer { json: json.into(), valid_until })
    };
    Ok(rows.into_iter().map(answer).collect())
}

/// Stores keys of a server and the answer that showed them. A stored key is never replaced by another of the same ID.
pub(crate) struct StoreKeys {
    pub server_name: Text,
    pub keys: Vec<ServerKeyRow>,
    pub answer: ServerKeyAnswer,
    /// Set if the answer shows how the keys are now. Any other does not replace one that is valid for longer.
    pub is_present: bool,
}

impl Transaction for StoreKeys {
    type Output = ();

    async fn run(&self, conn: &mut Conn<'_>, _: Position) -> Result<(), Error> {
        let stored = keys_of(conn, &self.server_name).await?;
        let is_other = |key: &ServerKeyRow| {
            stored.iter().any(|stored| stored.key_id == key.key_id && stored.public_key != key.public_key)
        };
        let row = |key: &ServerKeyRow| -> Row {
            ServerKeyColumns {
                server_name: self.server_name.clone(),
                key_id: key.key_id.as_str().into(),
                public_key: key.public_key.clone(),
                valid_until: key.valid_until,
                expired_at: key.expired_at,
            }
            .row()
        };
        insert_rows(conn, &self.keys.iter().filter(|key| !is_other(key)).map(row).collect::<Vec<_>>()).await?;

        let end: Option<(i64,)> = on!(conn, db =>
            sqlx::query_as(END_OF_ANSWER.text()).bind(&*self.server_name).fetch_optional(&mut **db).await)?;
        if !self.is_present && end.is_some_and(|(end,)| end > self.answer.valid_until) {
            return Ok(());
        }
        let answer = ServerKeyAnswerColumns {
            server_name: self.server_name.clone(),
            json: Text::clone(&self.answer.json),
            valid_until: self.answer.valid_until,
        };
        insert_rows(conn, &[answer.row()]).await
    }
}
