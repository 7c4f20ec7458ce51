//! Rows of sides: the states of branches, which the state log does not have.

use super::{Position, RoomNid, SideNid, rows::inserts};

inserts! {
    STATE_SIDE: StateSideColumns = "state_side" (
        side_nid: SideNid, room_nid: RoomNid, base_pos: Position, parent_nid: Option<SideNid>, ordinal: i64,
        hash: Vec<u8>, delta: Vec<u8>
    ) key 1 Fail, followed by Graph;
}
