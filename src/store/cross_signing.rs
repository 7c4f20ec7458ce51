//! Rows of cross-signing keys and of signatures that were added to keys later.

use super::{
    Conn, Error, UserNid,
    device_keys::{USERS_PER_STATEMENT, in_32},
    from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    KEYS_OF_USERS_32 = concat!("SELECT user_nid, usage, json FROM cross_signing_key WHERE user_nid IN ", in_32!(),
        " ORDER BY user_nid, usage");
    KEYS_OF_USAGE_32 = concat!("SELECT user_nid, json FROM cross_signing_key WHERE user_nid IN ", in_32!(),
        " AND usage = $33 ORDER BY user_nid");
    VISIBLE_SIGNATURES_32 = concat!("SELECT user_nid, key_id, signer_nid, signer_key_id, signature FROM key_signature \
        WHERE user_nid IN ", in_32!(), " AND (signer_nid = user_nid OR signer_nid = $33) \
        ORDER BY user_nid, key_id, signer_nid, signer_key_id");
    DELETE_KEY = "DELETE FROM cross_signing_key WHERE user_nid = $1 AND usage = $2";
    DELETE_SIGNATURES_OF_KEY = "DELETE FROM key_signature WHERE user_nid = $1 AND key_id = $2";
    DELETE_SIGNATURES_BY_KEY = "DELETE FROM key_signature WHERE signer_nid = $1 AND signer_key_id = $2";
}

inserts! {
    CROSS_SIGNING_KEY: CrossSigningKeyColumns = "cross_signing_key" (
        user_nid: UserNid, usage: Text, json: Text
    ) key 2 Replace, followed by DeviceList;
    KEY_SIGNATURE: KeySignatureColumns = "key_signature" (
        user_nid: UserNid, key_id: Text, signer_nid: UserNid, signer_key_id: Text, signature: Text
    ) key 4 Replace, followed by DeviceList;
}

/// A signature on a key, with its signer, the signing key and the signed key.
#[derive(Debug)]
pub(crate) struct SignatureRow {
    pub user_nid: i64,
    /// The device ID or the public cross-signing key that was signed.
    pub key_id: String,
    pub signer_nid: i64,
    pub signer_key_id: String,
    pub signature: String,
}

from_row!(SignatureRow { user_nid, key_id, signer_nid, signer_key_id, signature });

/// The cross-signing keys of these users: user, usage and JSON.
pub(crate) async fn cross_signing_keys(
    conn: &mut Conn<'_>,
    users: &[UserNid],
) -> Result<Vec<(UserNid, String, String)>, Error> {
    let mut rows = Vec::new();
    for chunk in users.chunks(USERS_PER_STATEMENT) {
        let found: Vec<(i64, String, String)> = on!(conn, db => {
            let mut query = sqlx::query_as(KEYS_OF_USERS_32.text());
            for index in 0..USERS_PER_STATEMENT {
                query = query.bind(chunk.get(index).map_or(0, |user| user.0));
            }
            query.fetch_all(&mut **db).await
        })?;
        rows.extend(found.into_iter().map(|(user, usage, json)| (UserNid(user), usage, json)));
    }
    Ok(rows)
}

/// The cross-signing keys of these users with this usage: user and JSON.
pub(crate) async fn keys_of_usage(
    conn: &mut Conn<'_>,
    users: &[UserNid],
    usage: &str,
) -> Result<Vec<(UserNid, String)>, Error> {
    let mut rows = Vec::new();
    for chunk in users.chunks(USERS_PER_STATEMENT) {
        let found: Vec<(i64, String)> = on!(conn, db => {
            let mut query = sqlx::query_as(KEYS_OF_USAGE_32.text());
            for index in 0..USERS_PER_STATEMENT {
                query = query.bind(chunk.get(index).map_or(0, |user| user.0));
            }
            query.bind(usage).fetch_all(&mut **db).await
        })?;
        rows.extend(found.into_iter().map(|(user, json)| (UserNid(user), json)));
    }
    Ok(rows)
}

/// The signatures on these users' keys that `asker` may see: those of the owner and those of the asker.
pub(crate) async fn visible_signatures(
    conn: &mut Conn<'_>,
    users: &[UserNid],
    asker: UserNid,
) -> Result<Vec<SignatureRow>, Error> {
    let mut rows = Vec::new();
    for chunk in users.chunks(USERS_PER_STATEMENT) {
        let found: Vec<SignatureRow> = on!(conn, db => {
            let mut query = sqlx::query_as(VISIBLE_SIGNATURES_32.text());
            for index in 0..USERS_PER_STATEMENT {
                query = query.bind(chunk.get(index).map_or(0, |user| user.0));
            }
            query.bind(asker.0).fetch_all(&mut **db).await
        })?;
        rows.extend(found);
    }
    Ok(rows)
}

/// Deletes the key with this usage.
pub(crate) async fn delete_key(conn: &mut Conn<'_>, user: UserNid, usage: &str) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(DELETE_KEY.text())
        .bind(user.0).bind(usage).execute(&mut **db).await.map(|_| ()))?)
}

/// Deletes the signatures on and by a key that is being replaced.
pub(crate) async fn delete_signatures(conn: &mut Conn<'_>, user: UserNid, public_key: &str) -> Result<(), Error> {
    on!(conn, db => sqlx::query(DELETE_SIGNATURES_OF_KEY.text())
        .bind(user.0).bind(public_key).execute(&mut **db).await.map(|_| ()))?;
    on!(conn, db => sqlx::query(DELETE_SIGNATURES_BY_KEY.text())
        .bind(user.0).bind(format!("ed25519:{public_key}")).execute(&mut **db).await.map(|_| ()))?;
    Ok(())
}
