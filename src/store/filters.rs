//! Rows of filters that clients have stored.

use super::{
    Conn, Error, FilterNid, UserNid, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_FILTER = "SELECT json FROM filter WHERE user_nid = $1 AND filter_id = $2";
    FIND_SAME_FILTER = "SELECT filter_id FROM filter WHERE user_nid = $1 AND json = $2 ORDER BY filter_id LIMIT 1";
    FILTER_IDS = "SELECT filter_id FROM filter WHERE user_nid = $1 ORDER BY filter_id LIMIT 10001";
    DELETE_FILTER = "DELETE FROM filter WHERE user_nid = $1 AND filter_id = $2";
}

inserts! {
    FILTER: FilterColumns = "filter" (user_nid: UserNid, filter_id: FilterNid, json: Text) key 2 Fail, not followed;
}

pub(crate) async fn find_filter(conn: &mut Conn<'_>, user: UserNid, filter_id: i64) -> Result<Option<String>, Error> {
    let row: Option<(String,)> = on!(conn, db =>
        sqlx::query_as(FIND_FILTER.text()).bind(user.0).bind(filter_id).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(json,)| json))
}

/// The user's filter with exactly this JSON.
pub(crate) async fn find_same_filter(conn: &mut Conn<'_>, user: UserNid, json: &str) -> Result<Option<i64>, Error> {
    let row: Option<(i64,)> = on!(conn, db =>
        sqlx::query_as(FIND_SAME_FILTER.text()).bind(user.0).bind(json).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(filter_id,)| filter_id))
}

/// The user's filters, oldest first; one more than `limits.filters_per_user` can allow.
pub(crate) async fn filter_ids(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<i64>, Error> {
    let rows: Vec<(i64,)> = on!(conn, db => sqlx::query_as(FILTER_IDS.text()).bind(user.0).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(filter_id,)| filter_id).collect())
}

pub(crate) async fn delete_filter(conn: &mut Conn<'_>, user: UserNid, filter_id: i64) -> Result<(), Error> {
    Ok(on!(conn, db =>
        sqlx::query(DELETE_FILTER.text()).bind(user.0).bind(filter_id).execute(&mut **db).await.map(|_| ()))?)
}
