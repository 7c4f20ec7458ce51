//! Reading a room's timeline: recent events from memory, older ones from the database.

use std::sync::Arc;

use ruma::EventId;
use sabha_federation::Pdu;

use crate::{
    room::{Room, Rooms, event::StoredEvent},
    store::{Error, EventNid, Position, TimelinePlace, events, timelines as rows},
};

/// An event of the line with its position.
pub type Placed = (Position, Arc<StoredEvent>);

/// An event of the timeline with its place: an event of the line, or one of fetched history.
pub type TimelineEvent = (TimelinePlace, Arc<StoredEvent>);

/// An event of the line without the other events that clients see with it.
#[derive(Debug)]
pub(crate) struct PlainEvent {
    pub(crate) pos: Position,
    pub(crate) nid: EventNid,
    pub(crate) pdu: Arc<Pdu>,
    pub(crate) is_redacted: bool,
}

impl Rooms {
    /// The event of the room with this ID, without the visibility check. Recent events come from memory.
    pub(in crate::room) async fn find_event(
        &self,
        room: &Room,
        event_id: &EventId,
    ) -> Result<Option<Arc<StoredEvent>>, Error> {
        let recent = room.view().ring.find(event_id);
        if let Some((_, event)) = recent {
            return Ok(Some(event));
        }
        let mut reader = self.db.read().await?;
        let found = events::find_event(&mut reader.conn(), event_id.as_str()).await?;
        drop(reader);
        match found.filter(|(_, of)| *of == room.nid) {
            Some((nid, _)) => Ok(Some(self.events.get(room, nid).await?)),
            None => Ok(None),
        }
    }

    /// Like [`Self::find_event`], but only an event that has a place in the timeline.
    pub(crate) async fn find_in_timeline(
        &self,
        room: &Room,
        event_id: &EventId,
    ) -> Result<Option<Arc<StoredEvent>>, Error> {
        let found = self.find_event(room, event_id).await?;
        Ok(found.filter(|event| event.place().is_some()))
    }

    /// At most the `limit` latest events of the line in (`after`, `upto`], oldest first, and whether there are more of
    /// them.
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
        let mut events = self.line_back(room, upto, after, limit + 1).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        events.reverse();
        Ok((events, more))
    }

    /// The same events as [`Self::timeline`], read in one statement and past the cache: many are read for a count, and
    /// nobody looks at them.
    pub(crate) async fn plain_timeline(
        &self,
        room: &Room,
        after: Position,
        upto: Position,
        limit: usize,
    ) -> Result<(Vec<PlainEvent>, bool), Error> {
        if let Some(mut recent) = room.recent(after, upto) {
            let more = recent.len() > limit;
            recent.drain(..recent.len().saturating_sub(limit));
            let plain = |(pos, event): Placed| PlainEvent {
                pos,
                nid: event.nid,
                pdu: Arc::clone(&event.pdu),
                is_redacted: event.redacted_because.is_some(),
            };
            return Ok((recent.into_iter().map(plain).collect(), more));
        }
        let mut reader = self.db.read().await?;
        let mut found = rows::plain_line_back(&mut reader.conn(), room.nid, upto, after, limit + 1).await?;
        drop(reader);
        let more = found.len() > limit;
        found.truncate(limit);
        let mut events = Vec::with_capacity(found.len());
        for row in found.into_iter().rev() {
            let missing = || Error::damaged("event", format!("{} is missing", row.event_nid));
            let event_id = EventId::parse(row.event_id.ok_or_else(missing)?);
            let event_id = event_id.map_err(|error| Error::damaged("event ID", error))?;
            let json = row.json.ok_or_else(missing)?;
            let pdu = Pdu::from_stored(&room.rules, event_id, json).map_err(|error| Error::damaged("event", error))?;
            events.push(PlainEvent {
                pos: Position(row.pos),
                nid: EventNid(row.event_nid),
                pdu: Arc::new(pdu),
                is_redacted: row.redaction_nid.is_some(),
            });
        }
        Ok((events, more))
    }

    /// The line from `from` (inclusive) back to `until` (exclusive), newest first.
    pub async fn line_back(
        &self,
        room: &Room,
        from: Position,
        until: Position,
        limit: usize,
    ) -> Result<Vec<Placed>, Error> {
        let mut reader = self.db.read().await?;
        let places = rows::line_back(&mut reader.conn(), room.nid, from, until, limit).await?;
        drop(reader);
        self.with_events(room, places).await
    }

    /// The timeline from `from` (inclusive) back to `until` (exclusive), newest first.
    pub async fn page_back(
        &self,
        room: &Room,
        from: TimelinePlace,
        until: TimelinePlace,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, Error> {
        let mut reader = self.db.read().await?;
        let places = rows::timeline_back(&mut reader.conn(), room.nid, from, until, limit).await?;
        drop(reader);
        self.with_events(room, places).await
    }

    /// The timeline from `after` (exclusive) to `upto` (inclusive), oldest first.
    pub async fn page_forward(
        &self,
        room: &Room,
        after: TimelinePlace,
        upto: TimelinePlace,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, Error> {
        let mut reader = self.db.read().await?;
        let places = rows::timeline_forward(&mut reader.conn(), room.nid, after, upto, limit).await?;
        drop(reader);
        self.with_events(room, places).await
    }

    /// Reads the events of these places.
    pub(in crate::room) async fn with_events<P>(
        &self,
        room: &Room,
        places: Vec<(P, EventNid)>,
    ) -> Result<Vec<(P, Arc<StoredEvent>)>, Error> {
        let nids: Vec<_> = places.iter().map(|(_, nid)| *nid).collect();
        let events = self.events.list(room, &nids).await?;
        Ok(places.into_iter().map(|(place, _)| place).zip(events).collect())
    }
}
