//! Outside the turn: the auth events, the previous events, the state before an event, and the rules against both.

use super::{HeadView, Ids, Incoming, ReceiveError, RoomFacts, Verdict};
use crate::model::RoomReader;

/// An event that was judged, with everything about it that does not depend on the room's current state.
#[derive(Debug)]
pub struct Judged {}

/// Decides whether an event is rejected, and finds the state before it.
///
/// `head` is the room as it is now; it may have gone on when the event is settled.
///
/// # Errors
/// When reading or resolving fails.
pub async fn judge<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    incoming: Incoming,
    ids: &I,
) -> Result<Verdict, ReceiveError<R::Error>> {
    let _ = (reader, room, head, incoming, ids);
    todo!()
}

/// Resolves the states that the room will have with a judged event, so that [`settle`](super::settle) need not.
///
/// # Errors
/// When reading or resolving fails.
pub async fn foresee<R: RoomReader, I: Ids<Error = R::Error>>(
    reader: &R,
    room: &RoomFacts<'_>,
    head: HeadView<'_>,
    judged: &mut Judged,
    ids: &I,
) -> Result<(), ReceiveError<R::Error>> {
    let _ = (reader, room, head, judged, ids);
    todo!()
}
