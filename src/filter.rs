//! Filters for the events that a client wants to see ([spec]).
//!
//! A filter is compiled once: each list becomes a sorted block of text, and the verdicts of many patterns on event types
//! are cached. [`SyncFilter::new`] refuses a filter with too many entries or patterns, whatever its source. So the time per
//! event is bounded, whatever the client asks for, and a compiled filter takes little more memory than its definition.
//! Syncs of a user with the same filter share the compiled one ([`FilterCache`]).
//!
//! `limit` applies only to events of the timeline. Elsewhere a client could not read later what a limit left out, so it
//! has no effect there. `event_fields` has no effect either: the specification lets a server send more fields than were
//! asked for.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering

mod bounds;
mod cache;
mod definition;
mod in_use;
mod names;
pub mod stored;
mod types;

use std::sync::{Arc, LazyLock};

use ruma::{
    OwnedRoomId, RoomId, UserId,
    api::client::filter::{EventFormat, Filter, LazyLoadOptions, RoomEventFilter, UrlFilter},
};
use serde_json::value::RawValue;

use self::{
    bounds::Budget,
    in_use::{Registration, SHARED_BYTES},
    names::Names,
    types::TypeFilter,
};
pub use self::{
    bounds::{FilterError, MAX_ENTRIES, MAX_PATTERN_BYTES, MAX_PATTERNS},
    cache::{FilterCache, FindFilterError, GivenFilterError},
    definition::{Definition, fields_in_query, timeline_fields, timeline_fields_in_query},
    stored::Filters,
};
use crate::{
    memory::ALLOCATION_BYTES,
    room::{
        event::StoredEvent,
        read::relations::{MAX_RELATED_BY, Related, RelatedBy},
    },
    store::Position,
};

/// A compiled filter of `/sync`. The default accepts everything.
#[derive(Debug, Default)]
pub struct SyncFilter {
    /// True if events are written in the federation format.
    pub federation_format: bool,
    pub presence: EventFilter,
    pub account_data: EventFilter,
    pub room: RoomFilter,
    /// The place among the filters in use, if it is shared.
    registration: Option<Registration>,
}

/// The part of a filter that is about rooms.
#[derive(Debug, Default)]
pub struct RoomFilter {
    /// The rooms that the client wants to receive at all.
    pub rooms: RoomList,
    pub include_leave: bool,
    pub account_data: EventFilter,
    pub ephemeral: EventFilter,
    pub state: EventFilter,
    pub timeline: EventFilter,
}

/// A compiled filter of events. The default accepts everything.
#[derive(Debug, Default)]
pub struct EventFilter {
    types: TypeFilter,
    senders: Option<Names>,
    not_senders: Names,
    rooms: RoomList,
    url: Option<UrlFilter>,
    related_by: Option<RelatedBy>,
    /// The maximum number of events that the client wants.
    pub limit: Option<u64>,
    pub lazy_load: LazyLoadOptions,
    pub unread_threads: bool,
}

/// Lists of rooms. Accepts the rooms of `rooms`, or all without such a list, but never those of `not_rooms`.
#[derive(Debug, Default)]
pub struct RoomList {
    rooms: Option<Names>,
    not_rooms: Names,
}

impl SyncFilter {
    /// The filter that accepts everything: one for all requests without a filter, because each takes over 2 kB.
    pub fn of_all() -> Arc<Self> {
        static OF_ALL: LazyLock<Arc<SyncFilter>> = LazyLock::new(Arc::default);
        Arc::clone(&OF_ALL)
    }

    /// Compiles a filter.
    ///
    /// # Errors
    /// When it has too many entries or patterns, or a pattern is too long.
    pub fn new(definition: &Definition) -> Result<Self, FilterError> {
        let Definition { known: definition, timeline: related_by } = definition;
        let mut budget = Budget::default();
        let room = &definition.room;
        Ok(Self {
            federation_format: definition.event_format == EventFormat::Federation,
            presence: EventFilter::of_plain(&definition.presence, &mut budget)?,
            account_data: EventFilter::of_plain(&definition.account_data, &mut budget)?,
            room: RoomFilter {
                rooms: RoomList::new(room.rooms.as_deref(), &room.not_rooms, &mut budget)?,
                include_leave: room.include_leave,
                account_data: EventFilter::compile(&room.account_data, &mut budget)?,
                ephemeral: EventFilter::compile(&room.ephemeral, &mut budget)?,
                state: EventFilter::compile(&room.state, &mut budget)?,
                timeline: EventFilter::compile(&room.timeline, &mut budget)?.related_by(related_by.clone())?,
            },
            registration: None,
        })
    }

    /// Returns the approximate bytes of memory that it takes.
    fn size_bytes(&self) -> usize {
        let room = &self.room;
        let events =
            [&self.presence, &self.account_data, &room.account_data, &room.ephemeral, &room.state, &room.timeline];
        size_of::<Self>()
            + SHARED_BYTES
            + room.rooms.bytes()
            + events.into_iter().map(EventFilter::bytes).sum::<usize>()
    }
}

impl EventFilter {
    /// Compiles the filter of one request for events of rooms.
    ///
    /// # Errors
    /// When it has too many entries or patterns, or a pattern is too long.
    pub fn new(filter: &RoomEventFilter, related_by: RelatedBy) -> Result<Self, FilterError> {
        Self::compile(filter, &mut Budget::default())?.related_by(related_by)
    }

    fn related_by(self, by: RelatedBy) -> Result<Self, FilterError> {
        let types = by.rel_types.as_ref().map_or(0, Vec::len);
        if types.max(by.senders.as_ref().map_or(0, Vec::len)) > MAX_RELATED_BY {
            return Err(FilterError::TooManyRelated);
        }
        Ok(Self { related_by: (!by.accepts_all()).then(|| by.without_unfit()), ..self })
    }

    /// The relations by which other events must relate to an event, in addition to [`Self::accepts`], for a user who
    /// sees events up to a position.
    pub fn related(&self, upto: Position) -> Option<Related<'_>> {
        self.related_by.as_ref().map(|by| Related { by, upto })
    }

    fn compile(filter: &RoomEventFilter, budget: &mut Budget) -> Result<Self, FilterError> {
        Ok(Self {
            types: TypeFilter::new(filter.types.as_deref(), &filter.not_types, budget)?,
            senders: filter.senders.as_deref().map(|senders| budget.names(senders)).transpose()?,
            not_senders: budget.names(&filter.not_senders)?,
            rooms: RoomList::new(filter.rooms.as_deref(), &filter.not_rooms, budget)?,
            url: filter.url_filter,
            related_by: None,
            limit: filter.limit.map(u64::from),
            lazy_load: filter.lazy_load_options,
            unread_threads: filter.unread_thread_notifications,
        })
    }

    fn of_plain(filter: &Filter, budget: &mut Budget) -> Result<Self, FilterError> {
        Ok(Self {
            types: TypeFilter::new(filter.types.as_deref(), &filter.not_types, budget)?,
            senders: filter.senders.as_deref().map(|senders| budget.names(senders)).transpose()?,
            not_senders: budget.names(&filter.not_senders)?,
            limit: filter.limit.map(u64::from),
            ..Self::default()
        })
    }

    /// Returns whether every event of a room that passes [`Self::accepts_room`] is accepted, so that none need be
    /// checked.
    pub fn accepts_all(&self) -> bool {
        let by_senders = self.senders.is_none() && self.not_senders.is_empty();
        by_senders && self.types.accepts_all() && self.url.is_none() && self.related_by.is_none()
    }

    /// Returns whether events of this room are wanted.
    pub fn accepts_room(&self, room_id: &RoomId) -> bool {
        self.rooms.accepts(room_id)
    }

    /// Returns whether an event of a room is wanted; [`Self::accepts_room`] checks the room itself.
    pub fn accepts(&self, event: &StoredEvent) -> bool {
        self.accepts_all()
            || (self.types.accepts(&event.pdu.event_type)
                && self.accepts_sender(event.sender())
                && self.accepts_url(&event.pdu.content))
    }

    /// Returns whether events of this type may be wanted.
    pub fn accepts_type(&self, event_type: &str) -> bool {
        self.types.accepts(event_type)
    }

    /// Returns whether events from this sender are wanted.
    pub fn accepts_sender(&self, sender: &UserId) -> bool {
        !self.not_senders.contains(sender.as_str())
            && self.senders.as_ref().is_none_or(|senders| senders.contains(sender.as_str()))
    }

    /// Returns whether an event without a sender is wanted, such as account data. A list of senders excludes all of
    /// these.
    pub fn accepts_unsent(&self, event_type: &str, event: &RawValue) -> bool {
        #[derive(serde::Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            content: &'a RawValue,
        }
        let content_fits = || match serde_json::from_str::<Event<'_>>(event.get()) {
            Ok(Event { content }) => self.accepts_url(content),
            Err(_) => self.url.is_none(),
        };
        self.senders.is_none() && self.types.accepts(event_type) && (self.url.is_none() || content_fits())
    }

    fn accepts_url(&self, content: &RawValue) -> bool {
        #[derive(serde::Deserialize)]
        struct Content {
            url: Option<serde::de::IgnoredAny>,
        }
        let has_url = || serde_json::from_str::<Content>(content.get()).is_ok_and(|content| content.url.is_some());
        match self.url {
            None => true,
            Some(UrlFilter::EventsWithUrl) => has_url(),
            Some(UrlFilter::EventsWithoutUrl) => !has_url(),
        }
    }

    fn bytes(&self) -> usize {
        let senders = self.senders.iter().chain([&self.not_senders]).map(Names::bytes).sum::<usize>();
        let related = self.related_by.as_ref().map_or(0, related_bytes);
        self.types.bytes() + senders + self.rooms.bytes() + related
    }
}

fn related_bytes(by: &RelatedBy) -> usize {
    let text = |text: &str| size_of::<String>() + text.len() + ALLOCATION_BYTES;
    let rel_types = by.rel_types.iter().flatten().map(|rel_type| text(rel_type));
    let senders = by.senders.iter().flatten().map(|sender| text(sender.as_str()));
    2 * ALLOCATION_BYTES + rel_types.chain(senders).sum::<usize>()
}

impl RoomList {
    fn new(rooms: Option<&[OwnedRoomId]>, not_rooms: &[OwnedRoomId], budget: &mut Budget) -> Result<Self, FilterError> {
        let rooms = rooms.map(|rooms| budget.names(rooms)).transpose()?;
        Ok(Self { rooms, not_rooms: budget.names(not_rooms)? })
    }

    /// Returns whether the lists accept the room.
    pub fn accepts(&self, room_id: &RoomId) -> bool {
        !self.not_rooms.contains(room_id.as_str())
            && self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room_id.as_str()))
    }

    fn bytes(&self) -> usize {
        self.rooms.iter().chain([&self.not_rooms]).map(Names::bytes).sum()
    }
}

#[cfg(test)]
mod tests;
