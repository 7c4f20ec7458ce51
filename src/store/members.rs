//! Rows of the rooms' local members.

use super::{
    Conn, Error, EventNid, Position, RoomNid, UserNid, from_row, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    MEMBERSHIPS_OF_USER = "SELECT room_nid, membership, event_nid, pos, forgotten, invite_state FROM member \
        WHERE user_nid = $1 ORDER BY room_nid";
    JOINED_ROOM_IDS = "SELECT r.room_nid, r.room_id FROM member m JOIN room r ON r.room_nid = m.room_nid \
        WHERE m.user_nid = $1 AND m.membership = $2 ORDER BY r.room_id";
    LOCAL_MEMBERS = "SELECT user_nid, membership FROM member WHERE room_nid = $1 ORDER BY user_nid";
    FORGET_MEMBERSHIP = "UPDATE member SET forgotten = TRUE, invite_state = NULL \
        WHERE user_nid = $1 AND room_nid = $2 AND pos = $3 AND membership IN (3, 4)";
}

inserts! {
    MEMBER: MemberColumns = "member" (
        user_nid: UserNid, room_nid: RoomNid, membership: i64, event_nid: EventNid, pos: Position, forgotten: bool,
        invite_state: Option<Text>
    ) key 2 Replace, followed by Member;
}

/// A local user's membership in a room, as stored.
#[derive(Debug)]
pub(crate) struct MemberRow {
    pub room_nid: i64,
    pub membership: i64,
    pub event_nid: i64,
    pub pos: i64,
    pub forgotten: bool,
    pub invite_state: Option<String>,
}

from_row!(MemberRow { room_nid, membership, event_nid, pos, forgotten, invite_state });

/// All rooms in which the local user has or had a membership.
pub(crate) async fn memberships(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<MemberRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(MEMBERSHIPS_OF_USER.text()).bind(user.0).fetch_all(&mut **db).await)?)
}

/// Forgets a membership. Returns whether it was still the latest one, and the user is out of the room.
pub(crate) async fn forget_membership(
    conn: &mut Conn<'_>,
    user: UserNid,
    room: RoomNid,
    pos: Position,
) -> Result<bool, Error> {
    let updated = on!(conn, db => sqlx::query(FORGET_MEMBERSHIP.text())
        .bind(user.0).bind(room.0).bind(pos.0).execute(&mut **db).await.map(|done| done.rows_affected()))?;
    Ok(updated > 0)
}

/// The IDs of the rooms in which the local user has this membership, in order.
pub(crate) async fn room_ids(conn: &mut Conn<'_>, user: UserNid, membership: u8) -> Result<Vec<(i64, String)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(JOINED_ROOM_IDS.text())
        .bind(user.0).bind(i64::from(membership)).fetch_all(&mut **db).await)?)
}

/// The local users of a room, with their memberships.
pub(crate) async fn local_members(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<(i64, i64)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(LOCAL_MEMBERS.text()).bind(room.0).fetch_all(&mut **db).await)?)
}
