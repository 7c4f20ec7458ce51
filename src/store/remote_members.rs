//! Rows of the users of other servers in rooms, and of the servers that are in a room through them.

use super::{Conn, Error, Position, RoomNid, ServerNid, UserNid, on, rows::inserts, statements};

statements! {
    JOINED_ROOMS_OF_REMOTE = "SELECT room_nid FROM remote_member WHERE user_nid = $1 AND joined ORDER BY room_nid";
    JOINED_BY_SERVER = "SELECT server_nid, joined FROM room_server WHERE room_nid = $1 ORDER BY server_nid";
    SERVERS_IN_ROOM = "SELECT s.name FROM room_server r JOIN server s ON s.server_nid = r.server_nid \
        WHERE r.room_nid = $1 AND r.joined > 0 ORDER BY s.name";
    SERVERS_OF_LOCAL_USER = "SELECT DISTINCT s.name FROM member m JOIN room_server r ON r.room_nid = m.room_nid \
        JOIN server s ON s.server_nid = r.server_nid \
        WHERE m.user_nid = $1 AND m.membership = $2 AND r.joined > 0 ORDER BY s.name";
}

inserts! {
    REMOTE_MEMBER: RemoteMemberColumns = "remote_member" (
        user_nid: UserNid, room_nid: RoomNid, joined: bool
    ) key 2 Replace, followed by RemoteMember;
    ROOM_SERVER: RoomServerColumns = "room_server" (
        server_nid: ServerNid, room_nid: RoomNid, joined: i64, changed_pos: Position
    ) key 2 Replace, followed by RemoteMember;
}

/// The rooms that another server's user is joined to, as far as this server knows.
pub(crate) async fn joined_rooms(conn: &mut Conn<'_>, user: UserNid) -> Result<Vec<i64>, Error> {
    Ok(on!(conn, db => sqlx::query_scalar(JOINED_ROOMS_OF_REMOTE.text()).bind(user.0).fetch_all(&mut **db).await)?)
}

/// The number of joined users of each other server that is, or was, in the room.
pub(crate) async fn joined_by_server(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<(i64, i64)>, Error> {
    Ok(on!(conn, db => sqlx::query_as(JOINED_BY_SERVER.text()).bind(room.0).fetch_all(&mut **db).await)?)
}

/// The names of the other servers with joined users in the room, in order.
pub(crate) async fn servers_in_room(conn: &mut Conn<'_>, room: RoomNid) -> Result<Vec<String>, Error> {
    Ok(on!(conn, db => sqlx::query_scalar(SERVERS_IN_ROOM.text()).bind(room.0).fetch_all(&mut **db).await)?)
}

/// The names of the other servers with joined users in any room in which the local user has this membership, in order.
pub(crate) async fn servers_of_user(conn: &mut Conn<'_>, user: UserNid, membership: u8) -> Result<Vec<String>, Error> {
    Ok(on!(conn, db => sqlx::query_scalar(SERVERS_OF_LOCAL_USER.text())
        .bind(user.0).bind(i64::from(membership)).fetch_all(&mut **db).await)?)
}
