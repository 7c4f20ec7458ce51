//! Redactions: [`ruma::api::client::redact`].

mod redact_event;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Send, redact_event::handle)
}
