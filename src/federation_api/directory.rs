//! Our public directory, for other servers.

mod get_public_rooms;
mod get_public_rooms_filtered;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_public_rooms::handle)
        .serve(Action::Other, get_public_rooms_filtered::handle)
}
