//! Relations: events whose content names another event that they relate to ([spec]).
//!
//! An event that relates to another one has a row for that, written with the event; other events cost nothing. Reading
//! goes from the parent to its children, page by page, and returns only events that the reader may see.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#forwarding-event-relationships

use std::{borrow::Cow, cmp::Reverse, collections::HashSet, sync::Arc};

use ruma::{EventId, OwnedUserId};
use sabha_federation::Pdu;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{threads::relation, timeline::TimelineEvent};
use crate::{
    room::{
        Room, Rooms,
        event::StoredEvent,
        read::{
            pages::PageRange,
            viewer::{ReadError, Viewer},
        },
        write::RoomWriter,
    },
    store::{
        Error, EventNid, Position, Row, TimelinePlace, relations as rows,
        relations::{By, RelatedParents, Wanted},
    },
};

pub use crate::store::relations::{MAX_DEPTH, MAX_RELATED_BY};

/// The longest relation type that is stored, in bytes: the limit for all names and IDs in Matrix.
const MAX_TYPE_BYTES: usize = 255;

/// The relations that a reader asks for.
#[derive(Debug)]
pub struct Relations<'a> {
    parent: &'a EventId,
    /// `None`: every type.
    rel_type: Option<&'a str>,
    /// The events that relate to the parent through other events, newest first, of the whole room. A page is read in
    /// many steps. Following relations is the most expensive part, so it is done once for all steps.
    over_others: Vec<(TimelinePlace, EventNid)>,
}

impl Relations<'_> {
    fn wanted(&self, room: &Room) -> Wanted<'_> {
        Wanted { room: room.nid, parent_id: self.parent.as_str(), rel_type: self.rel_type }
    }

    /// The part of `over_others` that comes next, newest first, from `highest` (inclusive) down to `below` (exclusive).
    fn between(&self, highest: TimelinePlace, below: TimelinePlace) -> &[(TimelinePlace, EventNid)] {
        let newer = self.over_others.partition_point(|(place, _)| *place > highest);
        let up_to = self.over_others.partition_point(|(place, _)| *place > below);
        &self.over_others[newer..up_to.max(newer)]
    }
}

/// The fields of a filter that accept an event only if another one relates to it ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct RelatedBy {
    /// The types of relation that count; `None` for all.
    #[serde(rename = "related_by_rel_types", default, skip_serializing_if = "Option::is_none")]
    pub rel_types: Option<Vec<String>>,
    /// The senders whose events count; `None` for all.
    #[serde(rename = "related_by_senders", default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<Vec<OwnedUserId>>,
}

impl RelatedBy {
    /// Returns whether it accepts every event.
    pub fn accepts_all(&self) -> bool {
        self.rel_types.is_none() && self.senders.is_none()
    }

    /// Removes types that no stored relation has. PostgreSQL might refuse to compare them.
    #[must_use]
    pub fn without_unfit(mut self) -> Self {
        if let Some(rel_types) = &mut self.rel_types {
            rel_types.retain(|rel_type| fits(rel_type));
        }
        self
    }
}

/// A filter by related events, for a reader who sees events up to a position.
#[derive(Debug, Clone, Copy)]
pub struct Related<'a> {
    pub by: &'a RelatedBy,
    pub upto: Position,
}

/// Returns whether a stored relation can have this text. Relations that no client can ask for are not stored, and
/// PostgreSQL stores no NUL.
fn fits(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TYPE_BYTES && !text.contains('\0')
}

/// A digest of the parts that make two annotations equal: the annotated event, the sender, the type and the key ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#avoiding-duplicate-annotations
#[derive(Debug, PartialEq, Eq)]
pub(in crate::room) struct Annotation([u8; 32]);

/// The annotation that an event makes. `None` for other events.
pub(in crate::room) fn annotation(pdu: &Pdu) -> Option<Annotation> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow, rename = "m.relates_to")]
        relates_to: RelatesTo<'a>,
    }
    #[derive(Deserialize)]
    struct RelatesTo<'a> {
        #[serde(borrow)]
        rel_type: Cow<'a, str>,
        #[serde(borrow)]
        event_id: Cow<'a, str>,
        #[serde(borrow)]
        key: Cow<'a, str>,
    }
    // Most events relate to nothing, and are not parsed for this.
    if pdu.state_key.is_some() || !pdu.content.get().contains("m.annotation") {
        return None;
    }
    let RelatesTo { rel_type, event_id, key } = serde_json::from_str::<Content<'_>>(pdu.content.get()).ok()?.relates_to;
    if rel_type != "m.annotation" || <&EventId>::try_from(&*event_id).is_err() {
        return None;
    }
    let mut digest = Sha256::new();
    for part in [pdu.room_id.as_str(), &event_id, pdu.sender.as_str(), &pdu.event_type, &key] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    Some(Annotation(digest.finalize().into()))
}

/// The relation row of an event, if it is in the timeline and relates to another one.
pub(in crate::room) fn row(event: &StoredEvent) -> Option<Row> {
    let place = event.place()?;
    let relation = relation(&event.pdu)?;
    let (rel_type, parent) = (relation.rel_type?, relation.event_id?);
    if !fits(&rel_type) || !fits(&parent) {
        return None;
    }
    let annotation = annotation(&event.pdu).map(|Annotation(digest)| digest.to_vec());
    Some(
        rows::RelationColumns {
            room_nid: event.room,
            parent_id: (&*parent).into(),
            pos: place.pos,
            sub: place.sub,
            event_nid: event.nid,
            rel_type: (&*rel_type).into(),
            annotation,
        }
        .row(),
    )
}

impl RoomWriter<'_> {
    /// Returns whether the event that was appended last repeats an annotation that its sender has made before.
    pub(in crate::room) async fn repeats_annotation(&self) -> Result<bool, Error> {
        let Some(annotation) = self.last_appended().and_then(annotation) else { return Ok(false) };
        if self.room.queued.annotates(&annotation) {
            return Ok(true);
        }
        let mut reader = self.rooms.db.read().await?;
        let stored = rows::find_annotation(&mut reader.conn(), &annotation.0).await?;
        drop(reader);
        match stored {
            // Its redaction may be queued, or may have been committed after that query.
            Some(nid) => Ok(self.event(nid).await?.redacted_because.is_none()),
            None => Ok(false),
        }
    }
}

impl Rooms {
    /// Finds the events that another one relates to as asked for, among those that `accepts` lets through.
    pub(crate) async fn related<P>(
        &self,
        room: &Room,
        events: &[(P, Arc<StoredEvent>)],
        related: Related<'_>,
        accepts: impl Fn(&StoredEvent) -> bool,
    ) -> Result<HashSet<EventNid>, Error> {
        Ok(self.related_until(room, events, related, usize::MAX, accepts).await?.found)
    }

    /// Finds events as [`Self::related`] does. Checks only the first events if `enough` relations were read for them.
    pub(in crate::room) async fn related_until<P>(
        &self,
        room: &Room,
        events: &[(P, Arc<StoredEvent>)],
        Related { by, upto }: Related<'_>,
        enough: usize,
        accepts: impl Fn(&StoredEvent) -> bool,
    ) -> Result<RelatedParents, Error> {
        let accepted = events.iter().enumerate().filter(|(_, (_, event))| accepts(event));
        let (indexes, nids): (Vec<usize>, Vec<EventNid>) =
            accepted.map(|(index, (_, event))| (index, event.nid)).unzip();
        let mut senders = Vec::new();
        for user_id in by.senders.iter().flatten() {
            senders.extend(self.db.find_user(user_id).await?.map(|user| user.nid));
        }
        let nothing_fits =
            by.rel_types.as_ref().is_some_and(Vec::is_empty) || (by.senders.is_some() && senders.is_empty());
        if nids.is_empty() || nothing_fits {
            return Ok(RelatedParents { settled: events.len(), ..RelatedParents::default() });
        }
        let rel_types = by.rel_types.as_deref().unwrap_or_default();
        let by = By { room: room.nid, upto, rel_types, senders: &senders };
        let mut reader = self.db.read().await?;
        let found = rows::related_parents(&mut reader.conn(), by, &nids, enough).await?;
        drop(reader);
        // Events that are not accepted need no answer.
        let settled = indexes.get(found.settled).copied().unwrap_or(events.len());
        Ok(RelatedParents { settled, ..found })
    }

    /// The events that relate to an event, to be read in steps. With `recurse`, also the events that relate to those,
    /// up to [`MAX_DEPTH`] steps from the parent.
    ///
    /// # Errors
    /// [`ReadError::UnknownEvent`] when the viewer may not see the parent. That of an ignored user has relations too.
    pub async fn relations<'a>(
        &self,
        viewer: &Viewer<'_>,
        parent: &'a EventId,
        rel_type: Option<&'a str>,
        recurse: bool,
    ) -> Result<Relations<'a>, ReadError> {
        let found = self.find_in_timeline(&viewer.room, parent).await?;
        if !found.is_some_and(|event| viewer.sight.sees(&event)) {
            return Err(ReadError::UnknownEvent);
        }
        let mut relations = Relations { parent, rel_type, over_others: Vec::new() };
        if recurse {
            let mut reader = self.db.read().await?;
            let over_others = rows::related_over_others(&mut reader.conn(), relations.wanted(&viewer.room)).await?;
            drop(reader);
            relations.over_others = over_others;
        }
        Ok(relations)
    }

    /// Reads at most `limit` events of the range that relate to the event, without the visibility check.
    pub(in crate::room) async fn relating(
        &self,
        room: &Room,
        relations: &Relations<'_>,
        range: PageRange,
        limit: usize,
    ) -> Result<Vec<TimelineEvent>, Error> {
        let wanted = relations.wanted(room);
        let mut reader = self.db.read().await?;
        let mut places = match range {
            PageRange::Back { from, until } => {
                rows::related_back(&mut reader.conn(), wanted, (from, until), limit).await?
            }
            PageRange::Forward { after, upto } => {
                rows::related_forward(&mut reader.conn(), wanted, (after, upto), limit).await?
            }
        };
        drop(reader);
        match range {
            PageRange::Back { from, until } => {
                places.extend(relations.between(from, until).iter().take(limit));
                places.sort_unstable_by_key(|(place, _)| Reverse(*place));
            }
            PageRange::Forward { after, upto } => {
                places.extend(relations.between(upto, after).iter().rev().take(limit));
                places.sort_unstable_by_key(|(place, _)| *place);
            }
        }
        places.truncate(limit);
        self.with_events(room, places).await
    }
}

#[cfg(test)]
mod tests;
