//! State: [`ruma::api::client::state`].

mod get_state_event_for_key;
mod get_state_events;
mod send_state_event;

use crate::{endpoint::Routes, limits::rate_limits::Action};

/// The paths for an empty state key, which may be left out, with or without the slash before it.
const EMPTY_KEY: [&str; 4] = [
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}/",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
];

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Send, send_state_event::handle)
        .serve_at(&EMPTY_KEY, Action::Send, send_state_event::handle)
        .serve(Action::Other, get_state_events::handle)
        .serve(Action::Other, get_state_event_for_key::handle)
        .serve_at(&EMPTY_KEY, Action::Other, get_state_event_for_key::handle)
}
