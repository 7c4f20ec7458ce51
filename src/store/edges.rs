//! Rows of edges to events that were not known when the event that names them came.

use super::{
    EventNid, RoomNid,
    rows::{Text, inserts},
};

inserts! {
    EDGE_MISSING: EdgeMissingColumns = "edge_missing" (
        room_nid: RoomNid, missing_id: Text, child_nid: EventNid, covers: bool
    ) key 3 Replace, followed by Graph;
}
