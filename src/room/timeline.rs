//! Reading a room's timeline: recent events from memory, older ones from the database.

use std::sync::Arc;

use super::{Room, Rooms, event::StoredEvent};
use crate::store::{Error, EventNid, Position, TimelinePlace, timelines as rows};

/// An event of the line with its position.
pub type Placed = (Position, Arc<StoredEvent>);

/// An event of the timeline with its place: an event of the line, or one of fetched history.
pub type TimelineEvent = (TimelinePlace, Arc<StoredEvent>);

/// The events of a timeline that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The events that arrived as news, which is what `/sync` tells and what counts as unread.
    Line,
    WithHistory,
}

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
        let mut reader = self.db.read().await?;
        let places = rows::line_back(&mut reader.conn(), room.nid, upto, after, limit + 1).await?;
        drop(reader);
        let mut events = self.with_events(room, places).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        events.reverse();
        Ok((events, more))
    }

    /// The timeline, or a part of it, from `from` (inclusive) back to `until` (exclusive), newest first.
    pub async fn page_back(
        &self,
        room: &Room,
        part: Part,
        (from, until): (TimelinePlace, TimelinePlace),
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, Error> {
        let mut reader = self.db.read().await?;
        let conn = &mut reader.conn();
        let places = match part {
            Part::WithHistory => rows::timeline_back(conn, room.nid, from, until, limit).await?,
            Part::Line => {
                let line = rows::line_back(conn, room.nid, from.line_upto(), until.line_upto(), limit).await?;
                line.into_iter().map(|(pos, event)| (TimelinePlace::on_line(pos), event)).collect()
            }
        };
        drop(reader);
        self.with_events(room, places).await
    }

    /// The timeline from `after` (exclusive) to `upto` (inclusive), oldest first.
    pub async fn page_forward(
        &self,
        room: &Room,
        (after, upto): (TimelinePlace, TimelinePlace),
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, Error> {
        let mut reader = self.db.read().await?;
        let places = rows::timeline_forward(&mut reader.conn(), room.nid, after, upto, limit).await?;
        drop(reader);
        self.with_events(room, places).await
    }

    /// Reads the events at these places.
    pub(super) async fn with_events<P>(
        &self,
        room: &Room,
        places: Vec<(P, EventNid)>,
    ) -> Result<Vec<(P, Arc<StoredEvent>)>, Error> {
        let nids: Vec<_> = places.iter().map(|(_, nid)| *nid).collect();
        let events = self.events.list(room, &nids).await?;
        Ok(places.into_iter().map(|(place, _)| place).zip(events).collect())
    }
}
