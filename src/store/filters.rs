//! Rows of filters that clients have stored.

use super::{Conn, Error, UserNid, on, rows::inserts, statements};

statements! {
    FIND_FILTER = "SELECT json FROM filter WHERE user_nid = $1 AND filter_id = $2";
    FIND_SAME_FILTER = "SELECT filter_id FROM filter WHERE user_nid = $1 AND json = $2 ORDER BY filter_id LIMIT 1";
    COUNT_FILTERS = "SELECT COUNT(*) FROM filter WHERE user_nid = $1";
}

inserts! {
    FILTER = "filter" ("user_nid", "filter_id", "json") key 2 Fail;
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

pub(crate) async fn count_filters(conn: &mut Conn<'_>, user: UserNid) -> Result<i64, Error> {
    let (count,): (i64,) =
        on!(conn, db => sqlx::query_as(COUNT_FILTERS.text()).bind(user.0).fetch_one(&mut **db).await)?;
    Ok(count)
}
