//! Rows of profiles, and of other data that is deleted with an account.

use super::{
    Conn, Error, UserNid,
    conn::fetch_32,
    from_row, ids_32,
    leftovers::Leftover,
    log::Touch,
    on,
    rows::{Text, inserts},
    statements,
};

statements! {
    LIST_FIELDS = "SELECT field, json FROM profile WHERE user_nid = $1 ORDER BY field LIMIT $2";
    FIND_FIELD = "SELECT json FROM profile WHERE user_nid = $1 AND field = $2";
    FIND_SHOWN = "SELECT field, json FROM profile WHERE user_nid = $1 AND field IN ('displayname', 'avatar_url') \
        ORDER BY field LIMIT 2";
    FIND_SHOWN_32 = concat!("SELECT a.user_nid, a.deactivated_at, p.field, p.json FROM account a \
        LEFT JOIN profile p ON p.user_nid = a.user_nid AND p.field IN ('displayname', 'avatar_url') \
        WHERE a.user_nid IN (", ids_32!(), ")");
    DELETE_FIELD = "DELETE FROM profile WHERE user_nid = $1 AND field = $2";
    DELETE_PROFILE = "DELETE FROM profile WHERE user_nid = $1";
    DELETE_CROSS_SIGNING = "DELETE FROM cross_signing_key WHERE user_nid = $1";
}

inserts! {
    PROFILE: ProfileColumns = "profile" (
        user_nid: UserNid, field: Text, json: Text
    ) key 2 Replace, followed by Profile;
}

/// The most fields that are read: more than fit into a profile of 64 KiB.
const MAX_FIELDS: i64 = 65_536;

/// All fields of a profile with their values as JSON.
pub(crate) async fn list_fields(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<(String, String)>, Error> {
    Ok(on!(conn, db =>
        sqlx::query_as(LIST_FIELDS.text()).bind(user.0).bind(MAX_FIELDS).fetch_all(&mut **db).await)?)
}

/// One field's value as JSON.
pub(crate) async fn find_field(conn: &mut Conn<'_>, user: UserNid, field: &str) -> Result<Option<String>, Error> {
    let row: Option<(String,)> = on!(conn, db =>
        sqlx::query_as(FIND_FIELD.text()).bind(user.0).bind(field).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(json,)| json))
}

/// The display name and the avatar as JSON.
pub(crate) async fn find_shown(conn: &mut Conn<'_>, user: UserNid) -> Result<(Option<String>, Option<String>), Error> {
    let rows: Vec<(String, String)> =
        on!(conn, db => sqlx::query_as(FIND_SHOWN.text()).bind(user.0).fetch_all(&mut **db).await)?;
    let (mut displayname, mut avatar_url) = (None, None);
    for (field, json) in rows {
        match field.as_str() {
            "displayname" => displayname = Some(json),
            _ => avatar_url = Some(json),
        }
    }
    Ok((displayname, avatar_url))
}

/// A field of an account's profile that member events show.
#[derive(Debug)]
pub(crate) struct ShownFieldRow {
    pub user_nid: i64,
    pub deactivated_at: Option<i64>,
    /// `None` if the profile has none of these fields.
    pub field: Option<String>,
    pub json: Option<String>,
}

from_row!(ShownFieldRow { user_nid, deactivated_at, field, json });

/// The display names and the avatars of at most 32 users, in no particular order. An account without them has one row, a
/// user without an account none.
pub(crate) async fn find_shown_of(conn: &mut Conn<'_>, users: &[UserNid]) -> Result<Vec<ShownFieldRow>, Error> {
    Ok(fetch_32!(conn, FIND_SHOWN_32, users)?)
}

pub(crate) async fn delete_field(conn: &mut Conn<'_>, user: UserNid, field: &str) -> Result<(), Error> {
    conn.touch(Touch::Profile { user });
    Ok(on!(conn, db => sqlx::query(DELETE_FIELD.text()).bind(user.0).bind(field).execute(&mut **db).await.map(drop))?)
}

/// Deletes the parts of a deactivated account that others see: profile and cross-signing keys. A sweep deletes the rest
/// later.
pub(crate) async fn delete_belongings(conn: &mut Conn<'_>, user: UserNid) -> Result<(), Error> {
    conn.touch(Touch::Profile { user });
    Leftover::Account(user).leave(conn).await?;
    for statement in [DELETE_PROFILE, DELETE_CROSS_SIGNING] {
        on!(conn, db => sqlx::query(statement.text()).bind(user.0).execute(&mut **db).await.map(drop))?;
    }
    Ok(())
}
