//! Calls: [`ruma::api::client::voip`].

mod get_turn_server_info;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Other, get_turn_server_info::handle)
}
