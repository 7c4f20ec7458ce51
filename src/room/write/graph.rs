//! The rows of a room's graph that come with an event: the states of branches, gaps, edges to events that are missing, and
//! redactions of such events.

use std::sync::Arc;

use sabha_federation::{
    graph::Gap,
    sides::{Side, encode},
};

use super::{
    outcome::{Built, GapChange, MissingEdge, Outcome, PendingRedaction},
    rows::Making,
};
use crate::store::{EventNid, RoomNid, Row, TimelinePlace, edges, gaps, log::Touch, redactions, sides};

impl Making<'_> {
    /// Adds the rows of the graph that come with an event. They are touched before the event is: followers of the log evict
    /// an event that was stored before by the touch of the event itself.
    pub(super) fn add_graph(&mut self, built: &Built, outcome: &Outcome, place: Option<TimelinePlace>) {
        let Outcome { sides, gap, missing, pending_redaction, stored_before, .. } = outcome;
        if sides.is_empty() && gap.is_none() && missing.is_empty() && pending_redaction.is_none() && !stored_before {
            return;
        }
        let room = self.room.nid;
        self.write.touch(Touch::Graph { room });
        self.add_sides(sides);
        let (child, write) = (built.nid, &mut self.write);
        gap.and_then(|gap| gap_row(room, gap, place)).into_iter().for_each(|row| write.push(row));
        missing.iter().for_each(|edge| write.push(edge_row(room, edge, child)));
        pending_redaction.iter().for_each(|pending| write.push(redaction_row(room, pending, child)));
    }

    /// Adds the rows of new sides. The next writer finds them at once.
    pub(super) fn add_sides(&mut self, sides: &[Arc<Side>]) {
        for side in sides {
            self.room.queued.add_side(Arc::clone(side));
            self.effects.sides.push(side.nid);
            self.write.push(side_row(self.room.nid, side));
        }
    }
}

fn side_row(room: RoomNid, side: &Side) -> Row {
    sides::StateSideColumns {
        side_nid: side.nid,
        room_nid: room,
        base_pos: side.base_pos,
        parent_nid: side.parent.as_ref().map(|parent| parent.nid),
        ordinal: side.ordinal.into(),
        hash: side.hash.to_bytes().to_vec(),
        delta: encode(&side.delta),
    }
    .row()
}

/// The row of a gap. `place` is that of the event with which it comes; before an event without a place there is no gap.
fn gap_row(room: RoomNid, change: GapChange, place: Option<TimelinePlace>) -> Option<Row> {
    let (gap, tried_ms) = match change {
        GapChange::Opened => (Gap::before(place?), 0),
        GapChange::Filled { gap, tried_ms } => (gap, tried_ms),
    };
    let Gap { at: TimelinePlace { pos, sub }, next_sub, open } = gap;
    Some(gaps::TimelineGapColumns { room_nid: room, pos, sub, next_sub, open, tried_ms }.row())
}

fn edge_row(room: RoomNid, MissingEdge { missing, covers }: &MissingEdge, child: EventNid) -> Row {
    let missing_id = missing.as_str().into();
    edges::EdgeMissingColumns { room_nid: room, missing_id, child_nid: child, covers: *covers }.row()
}

fn redaction_row(room: RoomNid, PendingRedaction { target, by_power }: &PendingRedaction, redaction: EventNid) -> Row {
    redactions::PendingRedactionColumns {
        room_nid: room,
        target_id: target.as_str().into(),
        redaction_nid: redaction,
        by_power: *by_power,
    }
    .row()
}
