//! Rows of accounts, of registration tokens, and of the secret that makes the first administrator.

use super::{
    Conn, Error, UserNid, from_row,
    log::Touch,
    on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_ACCOUNT = "SELECT password_hash, admin, created_at, deactivated_at FROM account WHERE user_nid = $1";
    IS_DEACTIVATED = "SELECT user_nid FROM account WHERE user_nid = $1 AND deactivated_at IS NOT NULL";
    ANY_ACCOUNT = "SELECT user_nid FROM account WHERE password_hash IS NOT NULL LIMIT 1";
    ANY_ADMIN = "SELECT user_nid FROM account WHERE admin AND deactivated_at IS NULL LIMIT 1";
    LIST_ACCOUNTS = "SELECT u.user_id, a.admin, a.created_at, a.deactivated_at FROM account a \
        JOIN matrix_user u ON u.user_nid = a.user_nid WHERE u.user_id > $1 ORDER BY u.user_id LIMIT $2";
    SET_PASSWORD = "UPDATE account SET password_hash = $1 WHERE user_nid = $2 AND deactivated_at IS NULL";
    DEACTIVATE = "UPDATE account SET password_hash = NULL, admin = FALSE, deactivated_at = $1 \
        WHERE user_nid = $2 AND deactivated_at IS NULL";
    SET_ADMIN = "UPDATE account SET admin = $1 WHERE user_nid = $2 AND deactivated_at IS NULL";
    FIND_REGISTRATION_TOKEN = "SELECT token, uses_allowed, used, expires_at, created_at FROM registration_token \
        WHERE token = $1";
    LIST_REGISTRATION_TOKENS = "SELECT token, uses_allowed, used, expires_at, created_at FROM registration_token \
        WHERE token > $1 ORDER BY token LIMIT $2";
    COUNT_REGISTRATION = "UPDATE registration_token SET used = used + 1 WHERE token = $1";
    REVOKE_REGISTRATION_TOKEN = "DELETE FROM registration_token WHERE token = $1";
    FIND_SETUP_SECRET = "SELECT expires_at FROM setup_secret WHERE secret_hash = $1";
    DELETE_SETUP_SECRETS = "DELETE FROM setup_secret";
}

inserts! {
    ACCOUNT: AccountColumns = "account" (
        user_nid: UserNid, password_hash: Option<Text>, admin: bool, created_at: i64, deactivated_at: Option<i64>
    ) key 1 Fail, followed by Account;
    REGISTRATION_TOKEN: RegistrationTokenColumns = "registration_token" (
        token: Text, uses_allowed: Option<i64>, used: i64, expires_at: Option<i64>, created_at: i64
    ) key 1 Fail, not followed;
    SETUP_SECRET: SetupSecretColumns = "setup_secret" (
        secret_hash: Vec<u8>, expires_at: i64
    ) key 1 Fail, not followed;
}

/// An account; its password hash is in no `Debug` output.
pub struct AccountRow {
    pub password_hash: Option<String>,
    pub admin: bool,
    pub created_at: i64,
    pub deactivated_at: Option<i64>,
}

from_row!(AccountRow { password_hash, admin, created_at, deactivated_at });

/// An account in a list.
#[derive(Debug)]
pub struct ListedAccountRow {
    pub user_id: String,
    pub admin: bool,
    pub created_at: i64,
    pub deactivated_at: Option<i64>,
}

from_row!(ListedAccountRow { user_id, admin, created_at, deactivated_at });

/// A registration token, with the number of its uses.
#[derive(Clone)]
pub struct RegistrationTokenRow {
    pub token: String,
    pub uses_allowed: Option<i64>,
    pub used: i64,
    pub expires_at: Option<i64>,
    pub created_at: i64,
}

from_row!(RegistrationTokenRow { token, uses_allowed, used, expires_at, created_at });

/// The account of a user, deactivated or not.
pub(crate) async fn find_account(conn: &mut Conn<'_>, user: UserNid) -> Result<Option<AccountRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(FIND_ACCOUNT.text()).bind(user.0).fetch_optional(&mut **db).await)?)
}

/// Returns whether the user has a deactivated account.
pub(crate) async fn is_deactivated(conn: &mut Conn<'_>, user: UserNid) -> Result<bool, Error> {
    let row: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(IS_DEACTIVATED.text()).bind(user.0).fetch_optional(&mut **db).await)?;
    Ok(row.is_some())
}

/// Returns whether there has ever been an account.
pub(crate) async fn any_account(conn: &mut Conn<'_>) -> Result<bool, Error> {
    let row: Option<(i64,)> = on!(conn, db => sqlx::query_as(ANY_ACCOUNT.text()).fetch_optional(&mut **db).await)?;
    Ok(row.is_some())
}

/// Returns whether an administrator could log in.
pub(crate) async fn any_admin(conn: &mut Conn<'_>) -> Result<bool, Error> {
    let row: Option<(i64,)> = on!(conn, db => sqlx::query_as(ANY_ADMIN.text()).fetch_optional(&mut **db).await)?;
    Ok(row.is_some())
}

/// Accounts by user ID, from the first one after `after`.
pub(crate) async fn list_accounts(
    conn: &mut Conn<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<ListedAccountRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(LIST_ACCOUNTS.text()).bind(after).bind(limit).fetch_all(&mut **db).await)?)
}

/// Replaces the password of an active account. Returns whether there was one.
pub(crate) async fn set_password(conn: &mut Conn<'_>, user: UserNid, hash: &str) -> Result<bool, Error> {
    let changed = on!(conn, db => sqlx::query(SET_PASSWORD.text()).bind(hash).bind(user.0)
        .execute(&mut **db).await.map(|done| done.rows_affected()))?;
    Ok(is_changed(conn, user, changed))
}

/// Touches the account if its row was changed, and returns whether it was.
fn is_changed(conn: &mut Conn<'_>, user: UserNid, changed: u64) -> bool {
    if changed > 0 {
        conn.touch(Touch::Account { user });
    }
    changed > 0
}

/// Gives an active account the rights of an admin, or takes them. Returns whether there was one.
pub(crate) async fn set_admin(conn: &mut Conn<'_>, user: UserNid, admin: bool) -> Result<bool, Error> {
    let changed = on!(conn, db => sqlx::query(SET_ADMIN.text()).bind(admin).bind(user.0)
        .execute(&mut **db).await.map(|done| done.rows_affected()))?;
    Ok(is_changed(conn, user, changed))
}

/// Removes the password and the rights of an active account, for ever. Returns whether there was one.
pub(crate) async fn deactivate(conn: &mut Conn<'_>, user: UserNid, at: i64) -> Result<bool, Error> {
    let changed = on!(conn, db => sqlx::query(DEACTIVATE.text()).bind(at).bind(user.0)
        .execute(&mut **db).await.map(|done| done.rows_affected()))?;
    Ok(is_changed(conn, user, changed))
}

pub(crate) async fn find_registration_token(
    conn: &mut Conn<'_>,
    token: &str,
) -> Result<Option<RegistrationTokenRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(FIND_REGISTRATION_TOKEN.text()).bind(token).fetch_optional(&mut **db).await)?)
}

/// Registration tokens in their order, from the first one after `after`.
pub(crate) async fn list_registration_tokens(
    conn: &mut Conn<'_>,
    after: &str,
    limit: i64,
) -> Result<Vec<RegistrationTokenRow>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(LIST_REGISTRATION_TOKENS.text()).bind(after).bind(limit).fetch_all(&mut **db).await)?)
}

/// Counts one use of a registration token.
pub(crate) async fn count_registration(conn: &mut Conn<'_>, token: &str) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(COUNT_REGISTRATION.text()).bind(token).execute(&mut **db).await.map(drop))?)
}

/// Deletes a registration token. Returns whether there was one.
pub(crate) async fn revoke_registration_token(conn: &mut Conn<'_>, token: &str) -> Result<bool, Error> {
    let deleted = on!(conn, db => sqlx::query(REVOKE_REGISTRATION_TOKEN.text()).bind(token)
        .execute(&mut **db).await.map(|done| done.rows_affected()))?;
    Ok(deleted > 0)
}

/// The expiry time of a setup secret, if it is one.
pub(crate) async fn find_setup_secret(conn: &mut Conn<'_>, hash: &[u8]) -> Result<Option<i64>, Error> {
    let row: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(FIND_SETUP_SECRET.text()).bind(hash).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(expires_at,)| expires_at))
}

/// Deletes all setup secrets.
pub(crate) async fn delete_setup_secrets(conn: &mut Conn<'_>) -> Result<(), Error> {
    Ok(on!(conn, db => sqlx::query(DELETE_SETUP_SECRETS.text()).execute(&mut **db).await.map(drop))?)
}
