//! Rooms and their events: [`ruma::api::client::room`].

mod aliases;
mod create_room;
mod get_room_event;
mod upgrade_room;
pub(super) mod version;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::CreateRoom, create_room::handle)
        .serve(Action::CreateRoom, upgrade_room::handle)
        .serve(Action::Other, aliases::handle)
        .serve(Action::Other, get_room_event::handle)
}
