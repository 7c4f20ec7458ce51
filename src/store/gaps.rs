//! Rows of gaps: the places in timelines before which events are missing, or were missing until they were fetched.

use super::{Position, RoomNid, rows::inserts};

inserts! {
    TIMELINE_GAP: TimelineGapColumns = "timeline_gap" (
        room_nid: RoomNid, pos: Position, sub: i64, next_sub: i64, open: bool, tried_ms: i64
    ) key 3 Replace, followed by Graph;
}
