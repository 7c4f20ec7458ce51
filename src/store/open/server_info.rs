//! Facts about a database in `server_info`, such as the name of its server and its secret.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::OpenError;
use crate::store::{
    Conn, Error,
    conn::{on, statements},
};

statements! {
    FIND_INFO = "SELECT value FROM server_info WHERE name = $1";
    SET_INFO = "INSERT INTO server_info (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
}

/// The name of the server's name in `server_info`.
const SERVER_NAME: &str = "server_name";

/// The name of the secret in `server_info`, where it is in base64.
const STATE_HASH_KEY: &str = "state_hash_key";

/// Checks the server name in the database and returns whether the database is new. A new one gets this server's name,
/// for ever.
pub(super) async fn check_server_name(conn: &mut Conn<'_>, configured: &str) -> Result<bool, OpenError> {
    match find(conn, SERVER_NAME).await? {
        Some(found) if found == configured => Ok(false),
        Some(found) => Err(OpenError::OtherServer { found, configured: configured.to_owned() }),
        None => {
            set(conn, SERVER_NAME, configured).await?;
            Ok(true)
        }
    }
}

/// The secret that the first start has drawn.
pub(super) async fn state_hash_secret(conn: &mut Conn<'_>) -> Result<[u8; 32], Error> {
    if let Some(text) = find(conn, STATE_HASH_KEY).await? {
        let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        return bytes.ok_or_else(|| Error::damaged("server_info", STATE_HASH_KEY));
    }
    let secret: [u8; 32] = rand::random();
    set(conn, STATE_HASH_KEY, &BASE64_STANDARD.encode(secret)).await?;
    // Another process may have been first.
    Box::pin(state_hash_secret(conn)).await
}

async fn find(conn: &mut Conn<'_>, name: &str) -> Result<Option<String>, Error> {
    let found: Option<(String,)> =
        on!(conn, db => sqlx::query_as(FIND_INFO.text()).bind(name).fetch_optional(&mut **db).await)?;
    Ok(found.map(|(value,)| value))
}

/// Stores a fact, unless there is one of this name.
async fn set(conn: &mut Conn<'_>, name: &str, value: &str) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(SET_INFO.text()).bind(name).bind(value).execute(&mut **db).await.map(|_| ()))?)
}
