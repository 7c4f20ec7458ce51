//! Stored filters: [`ruma::api::client::filter`].

mod create_filter;
mod get_filter;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve(Action::Other, create_filter::handle).serve(Action::Other, get_filter::handle)
}
