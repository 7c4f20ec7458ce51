//! Syncing: [`ruma::api::client::sync`].

mod sync_events;

use http::Method;

use crate::{endpoint::Routes, limits::rate_limits::Action};

pub(super) fn routes() -> Routes {
    Routes::default().serve_raw(Method::GET, "/_matrix/client/v3/sync", Action::Sync, sync_events::handle).serve_raw(
        Method::GET,
        "/_matrix/client/r0/sync",
        Action::Sync,
        sync_events::handle,
    )
}
