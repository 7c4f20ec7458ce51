//! Messages: [`ruma::api::client::message`].

mod get_message_events;
mod send_message_event;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, send_message_event::handle).serve(Action::Other, get_message_events::handle)
}
