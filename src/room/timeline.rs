//! Reading a room's timeline: recent events from memory, older ones from the database.

use std::sync::Arc;

use super::{Room, Rooms, event::StoredEvent};
use crate::store::{Error, Position, timelines as rows};

/// An event with its place in the timeline.
pub type Placed = (Position, Arc<StoredEvent>);

impl Rooms {
    /// At most the `limit` latest events in (`after`, `upto`], oldest first, and whether there are more of them.
    pub async fn timeline(
        &self,
        room: &Room,
        after: Position,
        upto: Position,
        limit: usize,
    ) -> Result<(Vec<Placed>, bool), Error> {
        if let Some(mut events) = room.recent(after, upto) {
            let more = events.len() > limit;
            events.drain(..events.len().saturating_sub(limit));
            return Ok((events, more));
        }
        if let Some(mut events) = room.latest(upto, limit + 1)
            && events.len() > limit
        {
            // One event more than wanted is at hand. If it belongs to the range, there are more.
            let more = events.first().is_some_and(|(pos, _)| *pos > after);
            events.retain(|(pos, _)| *pos > after);
            events.drain(..events.len().saturating_sub(limit));
            return Ok((events, more));
        }
        let mut events = self.page_back(room, upto, after, limit + 1).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        events.reverse();
        Ok((events, more))
    }

    /// The timeline from `from` (inclusive) back to `until` (exclusive), newest first.
    pub async fn page_back(
        &self,
        room: &Room,
        from: Position,
        until: Position,
        limit: usize,
    ) -> Result<Vec<Placed>, Error> {
        let mut reader = self.db.read().await?;
        let places = rows::timeline_back(&mut reader.conn(), room.nid, from, until, limit).await?;
        drop(reader);
        self.place(room, places).await
    }

    /// The timeline from `after` (exclusive) to `upto` (inclusive), oldest first.
    pub async fn page_forward(
        &self,
        room: &Room,
        after: Position,
        upto: Position,
        limit: usize,
    ) -> Result<Vec<Placed>, Error> {
        let mut reader = self.db.read().await?;
        let places = rows::timeline_forward(&mut reader.conn(), room.nid, after, upto, limit).await?;
        drop(reader);
        self.place(room, places).await
    }

    pub(super) async fn place(
        &self,
        room: &Room,
        places: Vec<(Position, crate::store::EventNid)>,
    ) -> Result<Vec<Placed>, Error> {
        let nids: Vec<_> = places.iter().map(|(_, nid)| *nid).collect();
        let events = self.events.list(room, &nids).await?;
        Ok(places.into_iter().map(|(pos, _)| pos).zip(events).collect())
    }
}
