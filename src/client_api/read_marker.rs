//! The read marker: [`ruma::api::client::read_marker`].

mod set_read_marker;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, set_read_marker::handle)
}
