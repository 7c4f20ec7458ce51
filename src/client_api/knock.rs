//! Knocking: [`ruma::api::client::knock`].

mod knock_room;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Join, knock_room::handle)
}
