//! Filters: which events a client wants to see ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering

use ruma::{
    OwnedUserId, RoomId, UserId,
    api::client::filter::{Filter, RoomEventFilter, UrlFilter},
};

use crate::{glob, room::event::StoredEvent};

/// Whether the filter lets everything through, so that events need not be looked at.
pub fn accepts_all(filter: &RoomEventFilter) -> bool {
    filter.types.is_none()
        && filter.not_types.is_empty()
        && filter.senders.is_none()
        && filter.not_senders.is_empty()
        && filter.url_filter.is_none()
}

/// Whether the filter accepts an event of a room; the room itself is judged by [`accepts_room`].
pub fn accepts_event(filter: &RoomEventFilter, event: &StoredEvent) -> bool {
    accepts_all(filter)
        || (accepts_type(filter.types.as_deref(), &filter.not_types, &event.pdu.event_type)
            && accepts_sender(filter.senders.as_deref(), &filter.not_senders, event.sender())
            && accepts_url(filter.url_filter, event))
}

/// Whether the filter accepts this type of event.
pub fn accepts_room_type(filter: &RoomEventFilter, event_type: &str) -> bool {
    accepts_type(filter.types.as_deref(), &filter.not_types, event_type)
}

/// Whether the filter for account data or presence accepts this type.
pub fn accepts_plain_type(filter: &Filter, event_type: &str) -> bool {
    accepts_type(filter.types.as_deref(), &filter.not_types, event_type)
}

/// Whether a room is among those that the lists name.
pub fn accepts_room(rooms: Option<&[ruma::OwnedRoomId]>, not_rooms: &[ruma::OwnedRoomId], room_id: &RoomId) -> bool {
    !not_rooms.iter().any(|other| other == room_id)
        && rooms.is_none_or(|rooms| rooms.iter().any(|other| other == room_id))
}

fn accepts_type(types: Option<&[String]>, not_types: &[String], event_type: &str) -> bool {
    let named = |patterns: &[String]| patterns.iter().any(|pattern| glob::matches(pattern, event_type));
    !named(not_types) && types.is_none_or(named)
}

fn accepts_sender(senders: Option<&[OwnedUserId]>, not_senders: &[OwnedUserId], sender: &UserId) -> bool {
    let named = |users: &[OwnedUserId]| users.iter().any(|user| user == sender);
    !named(not_senders) && senders.is_none_or(named)
}

fn accepts_url(wanted: Option<UrlFilter>, event: &StoredEvent) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    let has_url = || event.content::<Content>().is_some_and(|content| content.url.is_some());
    match wanted {
        None => true,
        Some(UrlFilter::EventsWithUrl) => has_url(),
        Some(UrlFilter::EventsWithoutUrl) => !has_url(),
    }
}
