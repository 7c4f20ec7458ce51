//! Rows of room aliases and of the public room directory.

use super::{
    Conn, Error, RoomNid, UserNid,
    log::Touch,
    on,
    rows::{Text, inserts},
    statements,
};

statements! {
    FIND_ALIAS = "SELECT room_nid, creator_nid FROM room_alias WHERE alias = $1";
    ALIASES_OF_ROOM = "SELECT alias FROM room_alias WHERE room_nid = $1 ORDER BY alias LIMIT 1000";
    MOVE_ALIASES = "UPDATE room_alias SET room_nid = $1 WHERE alias IN \
        (SELECT alias FROM room_alias WHERE room_nid = $2 ORDER BY alias LIMIT $3)";
    DELETE_ALIAS = "DELETE FROM room_alias WHERE alias = $1 RETURNING room_nid";
    IS_PUBLISHED = "SELECT published_at FROM room_directory WHERE room_nid = $1";
    UNPUBLISH = "DELETE FROM room_directory WHERE room_nid = $1";
    PUBLISHED_ROOMS = "SELECT d.room_nid FROM room_directory d JOIN room_head h ON h.room_nid = d.room_nid \
        ORDER BY h.joined DESC, d.room_nid LIMIT 10000";
}

inserts! {
    ALIAS: AliasColumns = "room_alias" (
        alias: Text, room_nid: RoomNid, creator_nid: UserNid, created_at: i64
    ) key 1 Fail, followed by Alias;
    PUBLISHED: PublishedColumns = "room_directory" (
        room_nid: RoomNid, published_at: i64
    ) key 1 Replace, followed by Directory;
}

/// The room that an alias points to, and the creator of the alias.
pub(crate) async fn find_alias(conn: &mut Conn<'_>, alias: &str) -> Result<Option<(RoomNid, UserNid)>, Error> {
    let row: Option<(i64, i64)> =
        on!(conn, db => sqlx::query_as(FIND_ALIAS.text()).bind(alias).fetch_optional(&mut **db).await)?;
    Ok(row.map(|(room, creator)| (RoomNid(room), UserNid(creator))))
}

/// The first thousand aliases of a room, in alphabetical order.
pub(crate) async fn aliases_of_room(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<String>, Error> {
    let rows: Vec<(String,)> =
        on!(conn, db => sqlx::query_as(ALIASES_OF_ROOM.text()).bind(room.0).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(alias,)| alias).collect())
}

/// Points at most `limit` aliases of one room to another, and returns their number.
pub(crate) async fn move_aliases(conn: &mut Conn<'_>, from: RoomNid, to: RoomNid, limit: i64) -> Result<u64, Error> {
    let moved = on!(conn, db => sqlx::query(MOVE_ALIASES.text())
        .bind(to.0).bind(from.0).bind(limit).execute(&mut **db).await.map(|done| done.rows_affected()))?;
    if moved > 0 {
        conn.touch(Touch::Alias { room: from });
        conn.touch(Touch::Alias { room: to });
    }
    Ok(moved)
}

/// Deletes an alias. Returns whether there was one.
pub(crate) async fn delete_alias(conn: &mut Conn<'_>, alias: &str) -> Result<bool, Error> {
    let deleted: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(DELETE_ALIAS.text()).bind(alias).fetch_optional(&mut **db).await)?;
    if let Some((room,)) = deleted {
        conn.touch(Touch::Alias { room: RoomNid(room) });
    }
    Ok(deleted.is_some())
}

/// Returns whether the room is in the public directory.
pub(crate) async fn is_published(conn: &mut Conn<'_>, room: RoomNid) -> Result<bool, Error> {
    let row: Option<(i64,)> =
        on!(conn, db => sqlx::query_as(IS_PUBLISHED.text()).bind(room.0).fetch_optional(&mut **db).await)?;
    Ok(row.is_some())
}

pub(crate) async fn unpublish(conn: &mut Conn<'_>, room: RoomNid) -> Result<(), Error> {
    let deleted = on!(conn, db =>
        sqlx::query(UNPUBLISH.text()).bind(room.0).execute(&mut **db).await.map(|done| done.rows_affected()))?;
    if deleted > 0 {
        conn.touch(Touch::Directory { room });
    }
    Ok(())
}

/// The first ten thousand rooms of the public directory, those with the most members first.
pub(crate) async fn published_rooms(conn: &mut Conn<'_>) -> Result<Vec<RoomNid>, Error> {
    let rows: Vec<(i64,)> = on!(conn, db => sqlx::query_as(PUBLISHED_ROOMS.text()).fetch_all(&mut **db).await)?;
    Ok(rows.into_iter().map(|(room,)| RoomNid(room)).collect())
}
