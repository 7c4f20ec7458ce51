//! Our public directory, for other servers.

mod get_public_rooms;
mod get_public_rooms_filtered;

use crate::{endpoint::Routes, http::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_public_rooms::handle)
        .serve(Action::Other, get_public_rooms_filtered::handle)
}
