//! The capabilities of this server: [`ruma::api::client::discovery`].

mod get_capabilities;
mod get_supported_versions;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default()
        .serve(Action::Other, get_supported_versions::handle)
        .serve(Action::Other, get_capabilities::handle)
}
