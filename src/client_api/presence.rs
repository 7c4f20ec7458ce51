//! Presence: [`ruma::api::client::presence`].

mod get_presence;
mod set_presence;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Other, get_presence::handle).serve(Action::Presence, set_presence::handle)
}
