//! The events around an event: [`ruma::api::client::context`].

mod get_context;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Other, get_context::handle)
}
