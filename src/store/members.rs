//! Rows of the rooms' local members.

use super::{
    Conn, Error, EventNid, Position, RoomNid, UserNid,
    conn::{OfRoom, fetch_32},
    from_row, ids_32, on,
    rows::{Text, inserts},
    statements,
};

statements! {
    MEMBERSHIPS_OF_USER = "SELECT room_nid, membership, event_nid, pos, forgotten FROM member \
        WHERE user_nid = $1 ORDER BY room_nid";
    INVITE_STATES_32 = concat!("SELECT m.room_nid, r.room_id, m.pos, m.invite_state FROM member m \
        LEFT JOIN room r ON r.room_nid = m.room_nid WHERE m.room_nid IN (", ids_32!(), ") AND m.user_nid = $33");
    COUNTS_32 = concat!("SELECT user_nid, COUNT(*) FROM member WHERE user_nid IN (", ids_32!(), ") AND membership = $33 \
        GROUP BY user_nid");
    MEMBERSHIPS_BY_SENDER = "SELECT u.user_id, COUNT(*) FROM member m JOIN event e ON e.event_nid = m.event_nid \
        JOIN matrix_user u ON u.user_nid = e.sender_nid WHERE m.user_nid = $1 AND m.membership = $2 GROUP BY u.user_id";
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
}

from_row!(MemberRow { room_nid, membership, event_nid, pos, forgotten });

/// The stripped state of an invitation or a knock, as stored.
#[derive(Debug)]
pub(crate) struct InviteStateRow {
    /// `None` if the room is missing, which is damage.
    pub room_id: Option<String>,
    /// The position of the membership.
    pub pos: i64,
    pub invite_state: Option<String>,
}

from_row!(InviteStateRow { room_id, pos, invite_state });

/// All rooms in which the local user has or had a membership.
pub(crate) async fn memberships(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<MemberRow>, Error> {
    Ok(on!(conn, db => sqlx::query_as(MEMBERSHIPS_OF_USER.text()).bind(user.0).fetch_all(&mut **db).await)?)
}

/// The stripped states of the local user's memberships in at most 32 rooms, in no particular order. Rooms without a
/// membership are missing.
pub(crate) async fn invite_states(
    conn: &mut Conn<'_>,
    user: UserNid,
    rooms: &[RoomNid],
) -> Result<Vec<OfRoom<InviteStateRow>>, Error> {
    Ok(fetch_32!(conn, INVITE_STATES_32, rooms, user.0)?)
}

/// The local users who have any memberships of this kind, at most 32 of them, each with their number.
pub(crate) async fn counts(conn: &mut Conn<'_>, users: &[UserNid], membership: u8) -> Result<Vec<(i64, i64)>, Error> {
    Ok(fetch_32!(conn, COUNTS_32, users, i64::from(membership))?)
}

/// The senders of the local user's memberships of this kind, each with the number of those that they have set.
pub(crate) async fn count_by_sender(
    conn: &mut Conn<'_>,
    user: UserNid,
    membership: u8,
) -> Result<Vec<(String, i64)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(MEMBERSHIPS_BY_SENDER.text())
        .bind(user.0).bind(i64::from(membership)).fetch_all(&mut **db).await)?)
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
