//! In the turn: the rules against the current state, the forward extremities, and the new state of the room.

use super::{HeadView, Ids, Judged, ReceiveError, RedactionReader, RoomFacts, Settled};
use crate::model::RoomReader;

/// Decides what a judged event does to the room. `head` is the room's current one: nothing may change it until the decision
/// is stored.
///
/// The third time that the room's states had moved, they are resolved here.
///
/// # Errors
/// When reading or resolving fails, or when the room would have no forward extremity.
pub async fn settle<R: RoomReader + RedactionReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    judged: Box<Judged>,
    ids: &I,
) -> Result<Settled, ReceiveError<R::Error>> {
    let _ = (reader, room, head, judged, ids);
    todo!()
}
