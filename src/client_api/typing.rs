//! Typing notifications: [`ruma::api::client::typing`].

mod create_typing_event;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, create_typing_event::handle)
}
