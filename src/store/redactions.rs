//! Rows of redactions whose target was not known when they came.

use super::{
    EventNid, RoomNid,
    rows::{Text, inserts},
};

inserts! {
    PENDING_REDACTION: PendingRedactionColumns = "pending_redaction" (
        room_nid: RoomNid, target_id: Text, redaction_nid: EventNid, by_power: bool
    ) key 3 Replace, followed by Graph;
}
