//! Requests of other servers about our users and rooms.

mod get_profile_information;
mod get_room_information;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_profile_information::handle)
        .serve(Action::Other, get_room_information::handle)
}
